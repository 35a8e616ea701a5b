/** A small Llama as files in memory, whose linears are quantized as bitsandbytes or MLX does. */
import { reference, serialize } from "@tiedlora/core";
import { configFrom } from "../../src/config.ts";
import { createModel } from "../../src/load.ts";
import { bitsandbytesTensors, mlxTensors, Parts } from "./quantized.ts";

const LLAMA = {
  model_type: "llama",
  vocab_size: 40,
  hidden_size: 64,
  intermediate_size: 64,
  num_hidden_layers: 3,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  torch_dtype: "bfloat16",
};
export type Content = Map<string, Uint8Array | string>;
export type MakeParts = (name: string, shape: [number, number], seed: number) => Parts;

export const NF4_CONFIG = {
  quantization_config: { quant_method: "bitsandbytes", load_in_4bit: true, bnb_4bit_quant_type: "nf4" },
};
export const MLX_CONFIG = { quantization: { group_size: 32, bits: 4 } };

/** A random model as files; its linears are made by `make`, if that is given. */
export async function filesOf(config: object, make: MakeParts | null): Promise<Content> {
  const device = reference();
  const parts = new Parts();
  let seed = 1;
  for (const [name, parameter] of createModel(configFrom(LLAMA), { device, seed: 5 }).stateDict()) {
    if (make !== null && name.endsWith("_proj.weight")) {
      for (const [key, one] of make(name, parameter.shape as [number, number], seed++)) parts.set(key, one);
    } else {
      const values = (await parameter.data()) as Float32Array;
      parts.replace(name, "F32", parameter.shape, new Uint8Array(values.buffer));
    }
  }
  device.close();
  const weights = await serialize(parts.values());
  return new Map<string, Uint8Array | string>([
    ["config.json", JSON.stringify({ ...LLAMA, ...config })],
    ["model.safetensors", weights],
  ]);
}

export const bitsandbytes: MakeParts = (name, shape, seed) =>
  bitsandbytesTensors(name, shape, seed, { nested: true, scale: 0.1 }).parts;
export const mlx: MakeParts = (name, shape, seed) =>
  mlxTensors(name.replace(/\.weight$/, ""), shape, { bits: 4, group: 32 }, "f16", seed, 0.02).parts;
