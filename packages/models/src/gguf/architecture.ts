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
}

/** By `general.architecture`. Mistral's files call themselves llama too. */
const CONVERSIONS: Readonly<Record<string, Conversion>> = {
  llama: { modelType: "llama", interleaved: true },
  qwen2: { modelType: "qwen2", interleaved: false },
  qwen3: { modelType: "qwen3", interleaved: false },
  olmo2: { modelType: "olmo2", interleaved: false },
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
  /** Whether its rows are those of queries or keys. */
  readonly role: "q" | "k" | "other";
}

/** The tensor that holds the frequencies of rotary positions; it becomes part of the config. */
export const ROPE_FREQUENCIES = "rope_freqs.weight";

/** The place of a tensor by its GGUF name. Throws FormatError for names that the architecture has not. */
export function placeOf(name: string, modelType: ModelType, file: string): Place {
  const { names } = ARCHITECTURES[modelType];
  const [q, k, v] = names.qkv as readonly [string, string, string];
  const top: Readonly<Record<string, string>> = {
    token_embd: `${names.base}.${names.embed}`,
    output_norm: `${names.base}.${names.finalNorm}`,
    output: names.head,
  };
  const inside: Readonly<Record<string, string | null>> = {
    attn_norm: names.attentionNorm,
    post_attention_norm: names.attentionPostNorm,
    attn_q: q,
    attn_k: k,
    attn_v: v,
    attn_q_norm: names.qNorm,
    attn_k_norm: names.kNorm,
    attn_output: names.out,
    ffn_norm: names.mlpNorm,
    post_ffw_norm: names.mlpPostNorm,
    ffn_gate: names.gate,
    ffn_up: names.up,
    ffn_down: names.down,
  };
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
  const role = module === "attn_q" ? "q" : module === "attn_k" ? "k" : "other";
  return { module: prefix + path, part: part as Place["part"], role };
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
