/** GGUF files of small models: they are converted, and what is written must be a model's files. */
import { bytesSource, decodeF32, memoryFiles, openWeights, product } from "@tiedlora/core";
import { convertGguf, parseConfig } from "@tiedlora/models";
import {
  contentsOf,
  ggufBytes,
  type GgufTensorToWrite,
  type Meta,
  randomBlocks,
} from "../../../packages/models/test/support/gguf.ts";
import type { Random } from "../random.ts";
import { sound, type Target } from "../target.ts";

const WIDTH = 32;
const EXPERTS = 2;

/** What the tensors of a layer are called, beside two norms, by architecture; those of experts are stacks. */
const MATRICES: Readonly<Record<string, readonly string[]>> = {
  llama: ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"],
  gemma2: ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"],
  phi3: ["attn_qkv", "attn_output", "ffn_up", "ffn_down"],
  olmoe: ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"], // prettier-ignore
};
const NORMS: Readonly<Record<string, readonly string[]>> = {
  gemma2: ["post_attention_norm", "post_ffw_norm"],
  olmoe: ["attn_q_norm", "attn_k_norm"],
};

const f32 = (...shape: number[]): GgufTensorToWrite => ({ type: 0, shape, bytes: new Uint8Array(4 * product(shape)) }); // prettier-ignore

function blocks(random: Random, ...shape: number[]): GgufTensorToWrite {
  const type = random.pick([2, 3, 6, 7, 8]);
  return { type, shape, bytes: randomBlocks(type, product(shape), random.below(1000)) };
}

function shapeOf(name: string, architecture: string): number[] {
  if (name === "attn_qkv") return [3 * WIDTH, WIDTH];
  if (name === "ffn_up" && architecture === "phi3") return [2 * WIDTH, WIDTH];
  return name.endsWith("_exps") ? [EXPERTS, WIDTH, WIDTH] : [WIDTH, WIDTH];
}

function model(random: Random): Uint8Array {
  const architecture = random.pick(Object.keys(MATRICES));
  const tensors: Record<string, GgufTensorToWrite> = { "token_embd.weight": blocks(random, 4, WIDTH) };
  for (const name of ["attn_norm", "ffn_norm", ...(NORMS[architecture] ?? [])]) tensors[`blk.0.${name}.weight`] = f32(WIDTH); // prettier-ignore
  for (const name of MATRICES[architecture]!)
    tensors[`blk.0.${name}.weight`] = name === "ffn_gate_inp" ? f32(EXPERTS, WIDTH) : blocks(random, ...shapeOf(name, architecture)); // prettier-ignore
  tensors["output_norm.weight"] = f32(WIDTH);
  const sizes: Record<string, Meta> = {
    embedding_length: { u32: WIDTH },
    block_count: { u32: 1 },
    feed_forward_length: { u32: WIDTH },
    context_length: { u32: 64 },
    "attention.head_count": { u32: 2 },
    "attention.layer_norm_rms_epsilon": { f32: 1e-5 },
    ...(architecture === "gemma2" && { "attention.sliding_window": { u32: 8 } }),
    ...(architecture === "olmoe" && { expert_count: { u32: EXPERTS }, expert_used_count: { u32: 1 } }),
  };
  const own = Object.entries(sizes).map(([key, value]) => [`${architecture}.${key}`, value] as const);
  return ggufBytes({ "general.architecture": { text: architecture }, ...Object.fromEntries(own) }, tensors);
}

export function gguf(): Target {
  return {
    seed: (random) => new Map([["model.gguf", model(random)]]),
    async read(files) {
      const converted = await convertGguf(bytesSource(files.get("model.gguf")!, "model.gguf"));
      try {
        const contents = await contentsOf(converted.files);
        parseConfig(contents.get("config.json") as string, "config.json");
        const weights = await openWeights(memoryFiles(contents));
        for (const [name, { dtype }] of weights.entries) {
          if (dtype === "U32") continue;
          const values = decodeF32(await weights.read(name), "model", name);
          // what is copied as it is may be anything; scales and biases are checked while they are converted
          sound(!/\.(scales|biases)$/.test(name) || values.every(Number.isFinite), `${name} has a number that is not finite`); // prettier-ignore
        }
        await weights.close();
      } finally {
        await converted.close();
      }
    },
  };
}
