/**
 * peft's trained tokens: the files of TRAINABLE_TOKENS, and the tensor that files of LoRA have for `trainable_token_indices`. Both hold the new
 * rows of the embedding, where adapters here have their differences from the old ones.
 */
import { assign, FormatError, type Tensor } from "@tiedlora/core";
import type { AdapterLayer } from "../../adapter/layer.ts";
import { TOKENS } from "../../adapter/tokens.ts";
import { endsWithName } from "../../match.ts";
import { scaled } from "../../method.ts";
import { methods } from "../../methods/index.ts";
import { INPUT_EMBEDDINGS } from "../../methods/input-embedding.ts";
import type { Adapter } from "../../adapter/adapter.ts";
import type { PeftLoraConfig } from "./config.ts";
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
  tensors: (layer, adapter) =>
    layer === null ? [] : [rowsOf(layer, adapter, "rows", "trainable_tokens_delta")],
};

/** The rows that an adapter of another method trains beside its target, in a file of LoRA; none if it trains no rows. */
export function tokenRows(adapter: Adapter): Stored[] {
  const { tokens } = adapter.plan;
  const found = [...adapter.acting()].filter(([, { plan }]) => plan === tokens);
  return found.map(([, layer]) => rowsOf(layer, adapter, TOKENS, "token_adapter.trainable_tokens_delta"));
}

/** The tokens of a LoRA config. Throws FormatError if they are not of the input embedding. */
export function tokensOf(
  tokens: PeftLoraConfig["tokens"],
  file: string,
): { readonly trainedTokens?: readonly number[] } {
  if (tokens === null) return {};
  const { module, ids } = tokens;
  if (module !== null && !INPUT_EMBEDDINGS.some((name) => endsWithName(module, name)))
    throw new FormatError({
      file,
      tensor: "trainable_token_indices",
      found: `tokens of ${JSON.stringify(module)}`,
      expected: `tokens of the input embedding: ${INPUT_EMBEDDINGS.join(" or ")}`,
      hint: "Rows of other embeddings are not trained here: in Python, merge the adapter into the model.",
    });
  return { trainedTokens: ids };
}

function rowsOf(layer: AdapterLayer, adapter: Adapter, factor: string, name: string): Stored {
  if ((adapter.model as { readonly tied?: boolean }).tied === true)
    throw new Error(
      "trained tokens: this model's output embedding is tied to the input embedding, and peft changes the rows of both, while here those of the input alone are changed; untie them first",
    );
  const parameter = layer.parameter(factor)!;
  const [width, count] = parameter.shape as [number, number];
  const host = [...adapter.acting()].find(([, one]) => one === layer)![0];
  const { trainedTokens: own } = adapter.method;
  const ids = (): Tensor => layer.parameter("ids") ?? parameter.device!.tensor(Int32Array.from(own));
  const old = (): Tensor => host.weight.cast("f32").take(ids());
  return {
    name: at(layer, name),
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
