/**
 * Every model family that can be loaded, as data: how its config names things, how its modules are named, and which of
 * the decoder's few variants it uses. All families share one decoder (decoder.ts).
 */

import type { RopeScaling } from "./rope.ts";

/** Names of modules as Hugging Face's models have them: adapters and files refer to these. */
interface Names {
  /** Everything but the output embedding is below this module. */
  readonly base: string;
  readonly embed: string;
  /** Learned absolute positions; null where positions are rotary. */
  readonly position: string | null;
  readonly layers: string;
  readonly finalNorm: string;
  readonly head: string;
  // --- inside a layer
  /** Norms of what attention and the MLP read, and of what they add to the residual stream; null where there is none. */
  readonly attentionNorm: string | null;
  readonly attentionPostNorm: string | null;
  readonly mlpNorm: string | null;
  readonly mlpPostNorm: string | null;
  /** One fused linear, or queries, keys and values. */
  readonly qkv: readonly [string] | readonly [string, string, string];
  readonly qNorm: string;
  readonly kNorm: string;
  readonly out: string;
  readonly gate: string;
  readonly up: string;
  readonly down: string;
  /** In a mixture of experts: the router, and the list of experts, each with the names above. */
  readonly router: string;
  readonly experts: string;
}

/** Names of sizes in config.json; where there are several, the first that is present counts. */
interface Fields {
  readonly hidden: readonly string[];
  readonly layers: readonly string[];
  readonly heads: readonly string[];
  readonly intermediate: readonly string[];
  readonly maxPositions: readonly string[];
  readonly normEps: readonly string[];
  readonly activation: readonly string[];
}

/** rms: x / rms(x) * w. layer: LayerNorm. rms1p, layer1p: the same with a weight that is stored as w - 1. */
export type NormKind = "rms" | "layer" | "rms1p" | "layer1p";

/** The stored weight of a norm that changes nothing. */
export const IDENTITY_WEIGHT: { readonly [K in NormKind]: 0 | 1 } = {
  rms: 1,
  layer: 1,
  rms1p: 0,
  layer1p: 0,
};

/** gated: down(act(gate x) * up x). fused: the same, with gate and up as one linear, `up`. plain: down(act(up x)). */
export type MlpKind = "gated" | "fused" | "plain";

/** How a config describes a mixture of experts. */
interface MixtureFields {
  /** The field with the width of an expert. */
  readonly width: string;
  /** The values that transformers assumes for fields that the config lacks; null: the field is needed. */
  readonly defaults: { readonly count: number; readonly perToken: number; readonly width: number | null };
  /** Whether the config may leave some layers with a single MLP. */
  readonly someLayers: boolean;
}

/** Norms of queries and keys, before the rotation: none, one over each head, or one over the whole projection. */
export type QkNorm = "none" | "head" | "projection";

/** What sets one architecture apart: names of its config fields and tensors, its norm, MLP, biases and positions. */
export interface Architecture {
  /** The class in transformers; written to config.json. */
  readonly className: string;
  readonly fields: Fields;
  readonly names: Names;
  readonly norm: NormKind;
  /** "optional": if the weight file has it. */
  readonly normBias: boolean | "optional";
  /** GPT-2 keeps linear weights as [in, out]. */
  readonly linear: "linear" | "conv1d";
  readonly mlp: MlpKind;
  /** Mixtures of experts, gated MLPs in place of one; null: none. */
  readonly experts: MixtureFields | null;
  /** Biases: fixed by the architecture, or a field of the config (false where absent). */
  readonly qkvBias: boolean | string;
  readonly outBias: boolean | string;
  readonly mlpBias: boolean | string;
  readonly qkNorm: QkNorm;
  /** Whether the config may set the scale of queries·keys as GPT-2's does; if not, it is 1 / √(width of a head). */
  readonly ownScales: boolean;
  /** The default of the config's query_pre_attn_scalar, whose root replaces that of the head's width; null: no such field. */
  readonly queryScalar: number | null;
  /** Whether embeddings are multiplied by √hidden. */
  readonly scaledEmbedding: boolean;
  /** The default limits of scores and of logits, x -> limit · tanh(x / limit); null: the config cannot limit them. */
  readonly softcaps: { readonly attention: number | null; readonly logits: number | null } | null;
  /** The default fraction of each head that is rotated, if the config may set it; null: always all of it. */
  readonly partialRotary: number | null;
  /** The default base of the rotary positions of layers with a window, if the config may set one for them alone; null: no. */
  readonly localTheta: number | null;
  /** The kinds of rotary scaling that the architecture has; null: all. */
  readonly ropeTypes: readonly RopeScaling["type"][] | null;
  /** The values that transformers assumes for fields that the config lacks. */
  readonly defaults: {
    readonly maxPositions: number;
    readonly normEps: number;
    readonly activation: string;
    readonly tied: boolean;
    readonly theta: number;
    /** null: as many as heads. */
    readonly kvHeads: number | null;
    /** null: hidden / heads. */
    readonly headDim: number | null;
    /** In "pattern": every n-th layer has no window. */
    readonly pattern: number;
    /** The window of layers that have one; null: none have, unless the config gives its size. */
    readonly window: number | null;
  };
  /** The layers that see only a window of the past ("switched": all, if the config switches windows on); below, whether some layers have no positions. */
  readonly window: "never" | "always" | "upper-layers" | "no-rope-layers" | "pattern" | "switched";
  readonly noRopeLayers: boolean;
  /** Tensors that old files contain and that are not needed. */
  readonly ignored: readonly RegExp[];
}

const LLAMA_FIELDS: Fields = {
  hidden: ["hidden_size"],
  layers: ["num_hidden_layers"],
  heads: ["num_attention_heads"],
  intermediate: ["intermediate_size"],
  maxPositions: ["max_position_embeddings"],
  normEps: ["rms_norm_eps"],
  activation: ["hidden_act"],
};

const LLAMA_NAMES: Names = {
  base: "model",
  embed: "embed_tokens",
  position: null,
  layers: "layers",
  finalNorm: "norm",
  head: "lm_head",
  attentionNorm: "input_layernorm",
  attentionPostNorm: null,
  mlpNorm: "post_attention_layernorm",
  mlpPostNorm: null,
  qkv: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
  qNorm: "self_attn.q_norm",
  kNorm: "self_attn.k_norm",
  out: "self_attn.o_proj",
  gate: "mlp.gate_proj",
  up: "mlp.up_proj",
  down: "mlp.down_proj",
  router: "mlp.gate",
  experts: "mlp.experts",
};

const LLAMA: Architecture = {
  className: "LlamaForCausalLM",
  fields: LLAMA_FIELDS,
  names: LLAMA_NAMES,
  norm: "rms",
  normBias: false,
  linear: "linear",
  mlp: "gated",
  experts: null,
  qkvBias: "attention_bias",
  outBias: "attention_bias",
  mlpBias: "mlp_bias",
  qkNorm: "none",
  ownScales: false,
  queryScalar: null,
  scaledEmbedding: false,
  softcaps: null,
  partialRotary: null,
  localTheta: null,
  ropeTypes: null,
  defaults: {
    maxPositions: 2048,
    normEps: 1e-6,
    activation: "silu",
    tied: false,
    theta: 10_000,
    kvHeads: null,
    headDim: null,
    pattern: 1,
    window: 4096,
  },
  window: "never",
  noRopeLayers: false,
  ignored: [/\.rotary_emb\.(inv_freq|cos_cached|sin_cached)$/],
};

const QWEN2: Architecture = {
  ...LLAMA,
  className: "Qwen2ForCausalLM",
  qkvBias: true,
  outBias: false,
  mlpBias: false,
  defaults: { ...LLAMA.defaults, maxPositions: 32_768, kvHeads: 32 },
  window: "upper-layers",
};

const QWEN3: Architecture = {
  ...QWEN2,
  className: "Qwen3ForCausalLM",
  qkvBias: "attention_bias",
  outBias: "attention_bias",
  qkNorm: "head",
  defaults: { ...QWEN2.defaults, headDim: 128 },
};

const GEMMA2: Architecture = {
  ...LLAMA,
  className: "Gemma2ForCausalLM",
  fields: { ...LLAMA_FIELDS, activation: ["hidden_activation"] },
  names: {
    ...LLAMA_NAMES,
    attentionPostNorm: "post_attention_layernorm",
    mlpNorm: "pre_feedforward_layernorm",
    mlpPostNorm: "post_feedforward_layernorm",
  },
  norm: "rms1p",
  mlpBias: false,
  queryScalar: 256,
  scaledEmbedding: true,
  softcaps: { attention: 50, logits: 30 },
  defaults: {
    ...LLAMA.defaults,
    maxPositions: 8192,
    activation: "gelu_pytorch_tanh",
    tied: true,
    kvHeads: 4,
    headDim: 256,
    pattern: 2,
  },
  window: "pattern",
};

/** Values of `model_type` in config.json. */
export type ModelType =
  | "gpt2"
  | "llama"
  | "mistral"
  | "qwen2"
  | "qwen3"
  | "olmo2"
  | "phi3"
  | "gemma2"
  | "gemma3_text"
  | "qwen3_moe"
  | "olmoe"
  | "smollm3"
  | "nemotron"
  | "nemo_gpt";

/** The architectures that can be loaded, by `model_type`. */
export const ARCHITECTURES: { readonly [T in ModelType]: Architecture } = {
  gpt2: {
    ...LLAMA,
    className: "GPT2LMHeadModel",
    fields: {
      hidden: ["n_embd", "hidden_size"],
      layers: ["n_layer", "num_hidden_layers"],
      heads: ["n_head", "num_attention_heads"],
      intermediate: ["n_inner"],
      maxPositions: ["n_positions", "n_ctx", "max_position_embeddings"],
      normEps: ["layer_norm_epsilon"],
      activation: ["activation_function"],
    },
    names: {
      ...LLAMA_NAMES,
      base: "transformer",
      embed: "wte",
      position: "wpe",
      layers: "h",
      finalNorm: "ln_f",
      attentionNorm: "ln_1",
      mlpNorm: "ln_2",
      qkv: ["attn.c_attn"],
      out: "attn.c_proj",
      up: "mlp.c_fc",
      down: "mlp.c_proj",
    },
    norm: "layer",
    normBias: true,
    linear: "conv1d",
    mlp: "plain",
    qkvBias: true,
    outBias: true,
    mlpBias: true,
    ownScales: true,
    defaults: { ...LLAMA.defaults, maxPositions: 1024, normEps: 1e-5, activation: "gelu_new", tied: true },
    ignored: [/\.attn\.(bias|masked_bias)$/],
  },
  llama: LLAMA,
  mistral: {
    ...LLAMA,
    className: "MistralForCausalLM",
    qkvBias: false,
    outBias: false,
    mlpBias: false,
    defaults: { ...LLAMA.defaults, maxPositions: 131_072, kvHeads: 8 },
    window: "always",
  },
  qwen2: QWEN2,
  qwen3: QWEN3,
  qwen3_moe: {
    ...QWEN3,
    className: "Qwen3MoeForCausalLM",
    experts: {
      width: "moe_intermediate_size",
      defaults: { count: 128, perToken: 8, width: 768 },
      someLayers: true,
    },
    defaults: { ...QWEN3.defaults, kvHeads: 4, headDim: null },
    window: "switched",
  },
  olmoe: {
    ...LLAMA,
    className: "OlmoeForCausalLM",
    mlpBias: false,
    experts: {
      width: "intermediate_size",
      defaults: { count: 64, perToken: 8, width: null },
      someLayers: false,
    },
    qkNorm: "projection",
    defaults: { ...LLAMA.defaults, maxPositions: 4096, normEps: 1e-5 },
  },
  /** Norms follow attention and the MLP instead of preceding them. */
  olmo2: {
    ...LLAMA,
    className: "Olmo2ForCausalLM",
    names: {
      ...LLAMA_NAMES,
      attentionNorm: null,
      attentionPostNorm: "post_attention_layernorm",
      mlpNorm: null,
      mlpPostNorm: "post_feedforward_layernorm",
    },
    mlpBias: false,
    qkNorm: "projection",
    defaults: { ...LLAMA.defaults, normEps: 1e-5 },
  },
  /** Phi-3 and Phi-4: queries, keys and values as one linear, and gate and up as one. */
  phi3: {
    ...LLAMA,
    className: "Phi3ForCausalLM",
    names: { ...LLAMA_NAMES, qkv: ["self_attn.qkv_proj"], up: "mlp.gate_up_proj" },
    mlp: "fused",
    qkvBias: false,
    outBias: false,
    mlpBias: false,
    partialRotary: 1,
    ropeTypes: ["default", "longrope"],
    defaults: { ...LLAMA.defaults, maxPositions: 4096, normEps: 1e-5, window: null },
    window: "always",
  },
  gemma2: GEMMA2,
  /** Gemma 3's text models. */
  gemma3_text: {
    ...GEMMA2,
    className: "Gemma3ForCausalLM",
    qkNorm: "head",
    localTheta: 10_000,
    softcaps: { attention: null, logits: null },
    defaults: { ...GEMMA2.defaults, maxPositions: 131_072, theta: 1_000_000, pattern: 6 },
  },
  smollm3: {
    ...LLAMA,
    className: "SmolLM3ForCausalLM",
    defaults: {
      ...LLAMA.defaults,
      maxPositions: 32_768,
      kvHeads: 4,
      tied: true,
      theta: 2_000_000,
      window: null,
    },
    window: "no-rope-layers",
    noRopeLayers: true,
  },
  /** transformers' port of NeMo's newer models. */
  nemotron: {
    ...LLAMA,
    className: "NemotronForCausalLM",
    fields: { ...LLAMA_FIELDS, normEps: ["norm_eps"] },
    norm: "layer1p",
    normBias: true,
    mlp: "plain",
    partialRotary: 0.5,
    defaults: { ...LLAMA.defaults, maxPositions: 4096, normEps: 1e-5, activation: "relu2" },
  },
  /** GPT-2B-001: NeMo's Megatron GPT with its own config names, modules named as in Llama. */
  nemo_gpt: {
    ...LLAMA,
    className: "NemoGPTForCausalLM",
    fields: {
      hidden: ["hidden_size"],
      layers: ["num_hidden_layers", "num_layers"],
      heads: ["num_attention_heads"],
      intermediate: ["intermediate_size", "ffn_hidden_size"],
      maxPositions: ["max_position_embeddings", "encoder_seq_length"],
      normEps: ["norm_eps", "layer_norm_eps", "layernorm_epsilon"],
      activation: ["hidden_act", "activation"],
    },
    norm: "layer1p",
    normBias: "optional",
    partialRotary: 1,
    defaults: { ...LLAMA.defaults, maxPositions: 4096, normEps: 1e-5 },
  },
};

export function isModelType(value: unknown): value is ModelType {
  return typeof value === "string" && Object.hasOwn(ARCHITECTURES, value);
}
