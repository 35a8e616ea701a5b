/** peft's PROMPT_TUNING: one tensor [n, width] of vectors in front of every sequence. */
import type { Adapter } from "../../adapter/adapter.ts";
import { methods } from "../../methods/index.ts";
import { INPUT_EMBEDDINGS } from "../../methods/input-embedding.ts";
import type * as nn from "@tiedlora/nn";
import { COUNT, type PeftKind, positive } from "./kind.ts";

export const PROMPT_TUNING: PeftKind = {
  method: "prompt-tuning",
  bias: "none",
  rank: null,
  dropout: null,
  unnamed: true,
  targets: INPUT_EMBEDDINGS,
  declare: (fields, common) => {
    fields.only("num_transformer_submodules", [1, null]);
    return methods.promptTuning({
      ...common,
      length: fields.number("num_virtual_tokens", 8, positive, COUNT),
    });
  },
  fields: (adapter) => {
    const { heads = null, layers = null } =
      (adapter.model as { readonly config?: { readonly heads?: number; readonly layers?: number } }).config ??
      {};
    const [length, width] = promptOf(adapter).shape as [number, number];
    return {
      num_virtual_tokens: length,
      token_dim: width,
      num_attention_heads: heads,
      num_layers: layers,
      num_transformer_submodules: 1,
      prompt_tuning_init: "RANDOM",
      prompt_tuning_init_text: null,
      tokenizer_name_or_path: null,
    };
  },
  tensors: (layer, adapter) => {
    const parameter = promptOf(adapter);
    return layer === null ? [{ name: "prompt_embeddings", parameter, shape: parameter.shape }] : [];
  },
};

const promptOf = (adapter: Adapter): nn.Parameter => adapter.select({ factors: ["prompt"] })[0]!;
