/** peft's TRAINABLE_TOKENS, which holds the new rows of the embedding, where the method has their differences from the old ones. */
import { assign, type Tensor } from "@tiedlora/core";
import type { AdapterLayer } from "../../adapter/layer.ts";
import { scaled } from "../../method.ts";
import { methods } from "../../methods/index.ts";
import { INPUT_EMBEDDINGS } from "../../methods/input-embedding.ts";
import type { Adapter } from "../../adapter/adapter.ts";
import { at, type PeftKind, type Stored } from "./kind.ts";

export const TRAINABLE_TOKENS: PeftKind = {
  method: "trained-tokens",
  bias: "none",
  rank: null,
  dropout: null,
  targets: INPUT_EMBEDDINGS,
  declare: (fields, common) =>
    methods.trainedTokens({ ...common, tokens: fields.raw["token_indices"] as number[] }),
  fields: ({ method }) => ({
    token_indices: method.recipe.options["tokens"] ?? [0, 1, 2],
    init_weights: true,
  }),
  tensors: (layer, adapter) => (layer === null ? [] : [rowsOf(layer, adapter)]),
};

function rowsOf(layer: AdapterLayer, adapter: Adapter): Stored {
  if ((adapter.model as { readonly tied?: boolean }).tied === true)
    throw new Error(
      "trained-tokens: this model's output embedding is tied to the input embedding, and peft changes the rows of both, while this method changes those of the input alone; untie them first",
    );
  const parameter = layer.parameter("rows")!;
  const [width, count] = parameter.shape as [number, number];
  const host = [...adapter.layers()].find(([, one]) => one === layer)![0];
  const old = (): Tensor => host.weight.cast("f32").take(layer.parameter("ids")!);
  return {
    name: at(layer, "trainable_tokens_delta"),
    parameter,
    shape: [count, width],
    write: () => old().add(scaled(parameter.transpose(), layer.scale)),
    set: (values) => {
      const fresh = parameter.device!.tensor(values, { shape: [count, width] });
      assign([
        [
          parameter,
          fresh
            .sub(old())
            .mul(1 / layer.scale)
            .transpose(),
        ],
      ]);
    },
  };
}
