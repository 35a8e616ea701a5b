/** Mixtures of experts as MLX writes them: the experts of a layer in stacks, quantized or not, read as they are on disk. */
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { cpu } from "@tiedlora/backend-cpu";
import { encodeTensor, memoryFiles, reference, serialize } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import { loadModelFrom } from "../src/load.ts";
import { expectedLogits, FAMILIES, IDS, randomModel } from "./support/models.ts";
import type { Weights } from "./support/naive.ts";
import { assertNear } from "./support/near.ts";
import { mlxTensors, Parts } from "./support/quantized.ts";

const device = reference();
const fast = await cpu({ threads: 2 });
after(() => [device, fast].forEach((one) => one.close()));

/** Rows that groups of 32 divide. Of Qwen3-MoE, the second layer has one MLP instead of experts. */
const SIZES = { hidden_size: 64, intermediate_size: 64, head_dim: 32, num_key_value_heads: 1 };
const MIXTURES = {
  qwen3_moe: { ...FAMILIES["qwen3_moe"]!, ...SIZES, num_attention_heads: 2, moe_intermediate_size: 32 },
  olmoe: { ...FAMILIES["olmoe"]!, ...SIZES, num_attention_heads: 2, num_hidden_layers: 1 },
};
type Raw = (typeof MIXTURES)[keyof typeof MIXTURES];

/** Settings of single modules: routers, which mlx-lm keeps in 8 bits, and the stack of one function. */
const isRouter = (module: string): boolean => module.endsWith(".mlp.gate");
const OWN_STACK = "model.layers.0.mlp.switch_mlp.up_proj";
const stackOf = (module: string): string => module.replace(/experts\.\d+/, "switch_mlp");
const settingsOf = (module: string): { bits: 4 | 8; group: number } =>
  isRouter(module) || stackOf(module) === OWN_STACK ? { bits: 8, group: 32 } : { bits: 4, group: 32 };

interface Checkpoint {
  readonly raw: object;
  readonly parts: Parts;
  /** Its numbers, by the names of single matrices. */
  readonly weights: Weights;
}

/** Lays matrices of one shape behind each other under the name of a stack. */
async function stack(parts: Parts, from: readonly string[], to: string): Promise<void> {
  const members = from.map((name) => parts.get(name)!);
  const bytes = await Promise.all(members.map(async (one) => one.bytes()));
  const { dtype, shape } = members[0]!;
  for (const name of from) parts.delete(name);
  parts.replace(to, dtype, [from.length, ...shape], Buffer.concat(bytes));
}

/** A random mixture as MLX writes it. */
async function written(raw: Raw, quantized: boolean): Promise<Checkpoint> {
  const parts = new Parts();
  const weights = new Map(randomModel(raw, device).weights);
  const own: Record<string, object> = { [OWN_STACK]: { bits: 8, group_size: 32 } };
  let seed = 1;
  for (const [name, { shape, values }] of weights) {
    const module = name.replace(/\.weight$/, "");
    if (!quantized || shape.length === 1) {
      parts.replace(name, "F32", shape, encodeTensor("f32", Float32Array.from(values)));
      continue;
    }
    if (isRouter(module)) own[module] = { bits: 8, group_size: 32 };
    const made = mlxTensors(module, shape as [number, number], settingsOf(module), "bf16", seed++, 0.05);
    for (const [key, one] of made.parts) parts.set(key, one);
    weights.set(name, { shape, values: Float64Array.from(made.expected) });
  }
  const stacks = new Map<string, string[]>();
  for (const name of parts.keys())
    if (/experts\.\d+/.test(name)) stacks.set(stackOf(name), [...(stacks.get(stackOf(name)) ?? []), name]);
  for (const [to, from] of stacks) await stack(parts, from, to);
  const how = quantized ? { quantization: { group_size: 32, bits: 4, ...own } } : {};
  return { raw: { ...raw, ...how }, parts, weights };
}

async function filesOf({
  raw,
  parts,
}: Pick<Checkpoint, "raw" | "parts">): Promise<ReturnType<typeof memoryFiles>> {
  return memoryFiles(
    new Map<string, Uint8Array | string>([
      ["config.json", JSON.stringify(raw)],
      ["model.safetensors", await serialize(parts.values())],
    ]),
  );
}

describe("experts in the stacks of MLX", () => {
  for (const [family, raw] of Object.entries(MIXTURES))
    for (const quantized of [false, true])
      test(`${family}, ${quantized ? "quantized" : "in f32"}: the logits are those of the formulas in float64`, async () => {
        const checkpoint = await written(raw, quantized);
        const files = await filesOf(checkpoint);
        const model = await loadModelFrom(files, { device: fast });
        const held = [...model.stateDict()].filter(([, one]) => one instanceof nn.QuantizedParameter);
        const matrices = [...checkpoint.weights].filter(([, { shape }]) => shape.length > 1);
        assert.deepEqual(held.map(([path]) => path).sort(), quantized ? matrices.map(([path]) => path).sort() : []); // prettier-ignore
        for (const [r, ids] of IDS.entries()) {
          const expected = expectedLogits(raw, model, checkpoint.weights, ids).flat();
          assertNear([...(await model.forward([ids]).data())], expected, 1e-4, `logits of row ${r}`);
        }
        const batch = { inputIds: IDS };
        const streamed = await loadModelFrom(files, { device: fast, stream: true });
        assert.equal(await streamed.streamed!.loss(batch), await model.loss(batch).item());
        await streamed.streamed!.free();
      });

  test("stacks that do not fit are refused by name", async () => {
    const { raw, parts } = await written(MIXTURES.qwen3_moe, true);
    const refused = async (
      change: (parts: Parts) => void,
      message: RegExp,
      more: object = {},
    ): Promise<void> => {
      const changed = new Parts(parts);
      change(changed);
      const files = await filesOf({ raw: { ...raw, ...more }, parts: changed });
      await assert.rejects(loadModelFrom(files, { device }), message);
    };
    const [codes, scales] = [`${OWN_STACK}.weight`, `${OWN_STACK}.scales`];
    await refused(() => undefined, /switch_mlp\.gate_proj\.weight.*\[5, 32, 8\]; expected \[4, 32, 8\]/, { num_experts: 4 }); // prettier-ignore
    await refused((all) => all.reshape(codes, [5, 32 * 16]), /up_proj\.weight.*found shape \[5, 512\]; expected \[5, 32, \d+\]/); // prettier-ignore
    await refused((all) => all.delete(scales), /experts\.0\.up_proj\.scales.*no such tensor/);
    const half = new Uint8Array(5 * 32 * 2);
    await refused((all) => all.replace(scales, "BF16", [5, 32, 1], half), /experts\.0\.up_proj\.scales.*BF16 \[32, 1\]; expected F32 or F16 or BF16 of 64 elements/); // prettier-ignore
  });
});
