/** peft's PREFIX_TUNING: one tensor [n, layers · 2 · width], in which the keys of each layer are followed by its values. */
import { concat, type Tensor } from "@tiedlora/core";
import type { Adapter } from "../../adapter/adapter.ts";
import type { AdapterLayer } from "../../adapter/layer.ts";
import { KEY_VALUE_NAMES } from "../../methods/prefix-tuning.ts";
import { methods } from "../../methods/index.ts";
import { COUNT, type PeftKind, positive, type Stored } from "./kind.ts";

export const PREFIX_TUNING: PeftKind = {
  method: "prefix-tuning",
  bias: "none",
  rank: null,
  dropout: null,
  unnamed: true,
  targets: KEY_VALUE_NAMES,
  declare: (fields, common) =>
    methods.prefixTuning({
      ...common,
      length: fields.number("num_virtual_tokens", 8, positive, COUNT),
    }),
  fields: (adapter) => {
    const { heads, kvHeads, layers } = sizesOf(adapter);
    return {
      num_virtual_tokens: partsOf(adapter)[0]!.shape[0]!,
      token_dim: widthOf(adapter) / (2 * layers),
      num_attention_heads: kvHeads ?? heads,
      num_layers: layers,
      num_transformer_submodules: 1,
      prefix_projection: false,
      encoder_hidden_size: null,
    };
  },
  tensors: (layer, adapter) => (layer === null ? [together(adapter)] : []),
};

const layersOf = (adapter: Adapter): AdapterLayer[] => [...adapter.layers()].map(([, layer]) => layer);

/** Keys and values of each layer, in the order of the file. */
const partsOf = (adapter: Adapter): Tensor[] => layersOf(adapter).map((layer) => layer.inFront("prefix")!);

const widthOf = (adapter: Adapter): number => partsOf(adapter).reduce((sum, { shape }) => sum + shape[1]!, 0);

interface Sizes {
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads?: number;
}

/** The sizes of the model's attention. Throws unless every layer has a prefix, as peft's file has. */
function sizesOf({ model, plan }: Adapter): Sizes {
  const { config } = model as { readonly config?: Partial<Sizes> };
  const layers = new Set(plan.sites.map(({ site }) => site.layer)).size;
  if (config?.layers === undefined || config.heads === undefined)
    throw new Error("peft's PREFIX_TUNING names the number of heads, and this model has no config that does");
  if (config.layers !== layers)
    throw new Error(
      `peft's PREFIX_TUNING has keys and values for all ${config.layers} layers, and this adapter for ${layers}; keep the native file`,
    );
  return config as Sizes;
}

function together(adapter: Adapter): Stored {
  const parts = partsOf(adapter);
  const [rows, width] = [parts[0]!.shape[0]!, widthOf(adapter)];
  return {
    name: "prompt_embeddings",
    parameter: adapter.parameters()[0]!,
    shape: [rows, width],
    write: () => concat(parts, 1),
    set: (values) => {
      let at = 0;
      for (const layer of layersOf(adapter)) {
        const parameter = (layer.parameter("prefix") ?? layer.parameter("both"))!;
        const [, own] = parameter.shape as [number, number];
        const from = at;
        parameter.set(Float32Array.from({ length: rows * own }, (_, i) => values[Math.floor(i / own) * width + from + (i % own)]!)); // prettier-ignore
        at += own;
      }
    },
  };
}
