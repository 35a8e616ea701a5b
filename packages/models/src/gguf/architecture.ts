/**
 * What llama.cpp's converter changes on the way from a Hugging Face directory to GGUF, by architecture, so that it can be undone: names
 * of tensors, the order of the rows of queries and keys, and the fields of config.json.
 */
import { FormatError } from "@tiedlora/core";
import { ARCHITECTURES, type ModelType } from "../architectures.ts";
import type { Metadata } from "./metadata.ts";

/** How a GGUF architecture becomes one of ours. */
interface Conversion {
  readonly modelType: ModelType;
  /** Whether rows of queries and keys are interleaved: pairs that are rotated together follow one another. */
  readonly interleaved: boolean;
  /** Whether 1 has been added to the weights of norms, which the model stores without it. */
  readonly addedOne: boolean;
}

const PLAIN = { interleaved: false, addedOne: false };

/** By `general.architecture`. Mistral's files call themselves llama too. */
const CONVERSIONS: Readonly<Record<string, Conversion>> = {
  llama: { ...PLAIN, modelType: "llama", interleaved: true },
  qwen2: { ...PLAIN, modelType: "qwen2" },
  qwen3: { ...PLAIN, modelType: "qwen3" },
  qwen3moe: { ...PLAIN, modelType: "qwen3_moe" },
  olmo2: { ...PLAIN, modelType: "olmo2" },
  olmoe: { ...PLAIN, modelType: "olmoe" },
  phi3: { ...PLAIN, modelType: "phi3" },
  gemma2: { ...PLAIN, modelType: "gemma2", addedOne: true },
  gemma3: { ...PLAIN, modelType: "gemma3_text", addedOne: true },
};

/** The conversion of a file. Throws FormatError for an architecture that is not known. */
export function conversionOf(metadata: Metadata): Conversion {
  const { architecture } = metadata;
  if (Object.hasOwn(CONVERSIONS, architecture)) return CONVERSIONS[architecture]!;
  return metadata.fail("general.architecture", `one of ${Object.keys(CONVERSIONS).join(", ")}`);
}

/** The tensor of a Hugging Face model that a GGUF tensor becomes. */
export interface Place {
  /** The path of the module. */
  readonly module: string;
  readonly part: "weight" | "bias";
  /** Whether its rows are those of queries or keys, it is the weight of a norm, or a stack of matrices, one for each expert. */
  readonly role: "q" | "k" | "norm" | "experts" | "other";
}

/** The tensors that hold factors of rotary frequencies: they become part of the config. */
export const ROPE_FACTORS = {
  any: "rope_freqs.weight",
  short: "rope_factors_short.weight",
  long: "rope_factors_long.weight",
} as const;

/** In a place of experts: stands for the number of the expert. */
export const EXPERT = "*";

/** The architecture that llama.cpp's converter gives a model of ours. Throws FormatError if it has none of these. */
export function architectureFor(modelType: ModelType): {
  readonly name: string;
  readonly interleaved: boolean;
} {
  const own = modelType === "mistral" ? "llama" : modelType;
  const found = Object.entries(CONVERSIONS).find(([, conversion]) => conversion.modelType === own);
  if (found !== undefined) return { name: found[0], interleaved: found[1].interleaved };
  const known = Object.values(CONVERSIONS).map((conversion) => conversion.modelType);
  throw new FormatError({
    file: "the model",
    tensor: "model_type",
    found: modelType,
    expected: `one of ${[...known, "mistral"].join(", ")}`,
  });
}

/** The name of a module's matrix in GGUF files, and what it is; null if they do not have it by itself. */
export function ggufNameOf(
  path: string,
  modelType: ModelType,
): { readonly name: string; readonly role: Place["role"] } | null {
  const { names } = ARCHITECTURES[modelType];
  const { top, inside } = tablesFor(modelType);
  const before = `${names.base}.${names.layers}.`;
  const [, block, inner] = /^(\d+)\.(.+)$/.exec(path.startsWith(before) ? path.slice(before.length) : "") ?? []; // prettier-ignore
  const [table, wanted] = block === undefined ? [top, path] : [inside, inner];
  const found = Object.entries(table).find(([, module]) => module === wanted)?.[0];
  if (found === undefined || found.endsWith("norm")) return null;
  return { name: `${block === undefined ? "" : `blk.${block}.`}${found}.weight`, role: roleOf(found) };
}

const roleOf = (module: string): Place["role"] =>
  module === "attn_q" ? "q" : module === "attn_k" ? "k" : module.endsWith("norm") ? "norm" : module.endsWith("_exps") ? "experts" : "other"; // prettier-ignore

type Table = Readonly<Record<string, string | null | undefined>>;

/** The modules by their names in GGUF files: those outside of layers, and those inside. */
function tablesFor(modelType: ModelType): { readonly top: Table; readonly inside: Table } {
  const { names, experts } = ARCHITECTURES[modelType];
  const [q, k, v] = names.qkv;
  const ofExpert = (path: string): string => `${names.experts}.${EXPERT}.${path.split(".").pop()!}`;
  const top = {
    token_embd: `${names.base}.${names.embed}`,
    output_norm: `${names.base}.${names.finalNorm}`,
    output: names.head,
  };
  const inside = {
    attn_norm: names.attentionNorm,
    post_attention_norm: names.attentionPostNorm,
    ...(k === undefined ? { attn_qkv: q } : { attn_q: q, attn_k: k, attn_v: v }),
    attn_q_norm: names.qNorm,
    attn_k_norm: names.kNorm,
    attn_output: names.out,
    ffn_norm: names.mlpNorm,
    post_ffw_norm: names.mlpPostNorm,
    ffn_gate: names.gate,
    ffn_up: names.up,
    ffn_down: names.down,
    ...(experts === null
      ? {}
      : {
          ffn_gate_inp: names.router,
          ffn_gate_exps: ofExpert(names.gate),
          ffn_up_exps: ofExpert(names.up),
          ffn_down_exps: ofExpert(names.down),
        }),
  };
  return { top, inside };
}

/** The place of a tensor by its GGUF name. Throws FormatError for names that the architecture has not. */
export function placeOf(name: string, modelType: ModelType, file: string): Place {
  const { names } = ARCHITECTURES[modelType];
  const { top, inside } = tablesFor(modelType);
  const [, block, module = "", part] = /^(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)$/.exec(name) ?? [];
  const table = block === undefined ? top : inside;
  const path = Object.hasOwn(table, module) ? table[module] : null;
  if (path === null || path === undefined)
    throw new FormatError({
      file,
      tensor: name,
      found: "a tensor that is not known",
      expected: `the tensors of a ${modelType} model`,
    });
  const prefix = block === undefined ? "" : `${names.base}.${names.layers}.${block}.`;
  return { module: prefix + path, part: part as Place["part"], role: roleOf(module) };
}

/**
 * For each row of a matrix of queries or keys as we have it, its row in the file: in a head there, the two elements that are rotated
 * together follow one another; here the one is in the first half of the head, the other in the second.
 */
export function interleavedRows(rows: number, heads: number): Uint32Array {
  const width = rows / heads;
  return Uint32Array.from({ length: rows }, (_, row) => {
    const [head, at] = [Math.floor(row / width), row % width];
    const [side, pair] = [Math.floor(at / (width / 2)), at % (width / 2)];
    return head * width + 2 * pair + side;
  });
}
