/** What every architecture must do besides computing its formulas (parity.ts): train, and be saved and loaded again. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  concat,
  encodeTensor,
  grad,
  key,
  memoryFiles,
  normalArray,
  openWeights,
  reference,
  serialize,
} from "@tiedlora/core";
import { loadModelFrom } from "../src/load.ts";
import type { OutputFile } from "../src/save.ts";
import { expectedLogits, FAMILIES, IDS, MODELS, randomModel } from "./support/models.ts";
import type { Weights } from "./support/naive.ts";
import { assertNear } from "./support/near.ts";

/** The mean of -log p over all predicted tokens. */
function lossOf(rows: readonly (readonly number[][])[]): number {
  const terms = rows.flatMap((logits, r) =>
    IDS[r]!.slice(1).map((id, t) => {
      const scores = logits[t]!;
      return Math.log(scores.reduce((sum, x) => sum + Math.exp(x), 0)) - scores[id]!;
    }),
  );
  return terms.reduce((a, b) => a + b) / terms.length;
}

describe("the gradient of the loss is the slope of the formulas along a random direction", () => {
  for (const [name, raw] of Object.entries(FAMILIES)) {
    test(name, async () => {
      const device = reference();
      const { model, weights } = randomModel(raw, device);
      const parameters = [...model.stateDict()];
      const gradients = grad(
        model.loss({ inputIds: IDS }),
        parameters.map(([, parameter]) => parameter),
      );
      const directions = new Map(
        parameters.map(([path, { size }]) => [path, normalArray(key(11).fold(path), size, 0, 1)]),
      );
      const along = parameters.flatMap(([path]) => Array.from(directions.get(path)!));
      const values = await concat(gradients.map((g) => g.reshape([-1]))).data();
      const slope = along.reduce((sum, d, i) => sum + d * values[i]!, 0);
      const step = 1e-5;
      const at = (distance: number): number => {
        const moved: Weights = new Map(
          [...weights].map(([path, { shape, values }]) => [
            path,
            { shape, values: Float64Array.from(values, (w, j) => w + distance * directions.get(path)![j]!) },
          ]),
        );
        // The last token predicts nothing and is not read: some rotations depend on the length.
        return lossOf(IDS.map((ids) => expectedLogits(raw, model, moved, ids.slice(0, -1))));
      };
      const expected = (at(step) - at(-step)) / (2 * step);
      assertNear([slope / expected], [1], 1e-3, `slope ${slope}, expected ${expected}; their ratio`);
      device.close();
    });
  }
});

/** The files as bytes and texts. */
async function collect(files: readonly OutputFile[]): Promise<Map<string, Uint8Array | string>> {
  const all = new Map<string, Uint8Array | string>();
  for (const [name, content] of files) {
    if (typeof content === "string") {
      all.set(name, content);
      continue;
    }
    const parts: Uint8Array[] = [];
    for await (const part of content) parts.push(part.slice());
    all.set(name, new Uint8Array(await new Blob(parts as Uint8Array<ArrayBuffer>[]).arrayBuffer()));
  }
  return all;
}

test("every architecture is saved and loaded again: the same config and the same weights", async () => {
  const device = reference();
  for (const [name, raw] of Object.entries(MODELS)) {
    const { model } = randomModel(raw, device);
    const files = memoryFiles(await collect(model.files({ maxShardBytes: 9000 })));
    const again = await loadModelFrom(files, { device });
    assert.deepEqual({ ...again.config, raw: null }, { ...model.config, raw: null }, name);
    const [before, after] = [model.stateDict(), again.stateDict()];
    assert.deepEqual([...after.keys()], [...before.keys()], name);
    for (const [path, parameter] of before)
      assert.deepEqual(await after.get(path)!.data(), await parameter.data(), `${name}: ${path}`);
  }
  device.close();
});

describe("experts that are stacked, as transformers 5 can write them", () => {
  const device = reference();
  const raw = FAMILIES["qwen3_moe"]!;
  const [experts, width, hidden] = [5, 7, 16];
  const at = "model.layers.0.mlp.experts";

  /** A random model, and its files with the experts of the only layer that has them in two stacks, filled number by number. */
  async function stackedByHand() {
    const { model, weights } = randomModel(raw, device);
    const value = (e: number, name: string, row: number, column: number, columns: number): number =>
      weights.get(`${at}.${e}.${name}.weight`)!.values[row * columns + column]!;
    const gateUp = new Float32Array(experts * 2 * width * hidden);
    const down = new Float32Array(experts * hidden * width);
    for (let e = 0; e < experts; e++)
      for (let r = 0; r < width; r++)
        for (let c = 0; c < hidden; c++) {
          gateUp[(e * 2 * width + r) * hidden + c] = value(e, "gate_proj", r, c, hidden);
          gateUp[(e * 2 * width + width + r) * hidden + c] = value(e, "up_proj", r, c, hidden);
          down[(e * hidden + c) * width + r] = value(e, "down_proj", c, r, width);
        }
    const stacks: Record<string, [number[], Float32Array]> = {
      [`${at}.gate_up_proj`]: [[experts, 2 * width, hidden], gateUp],
      [`${at}.down_proj`]: [[experts, hidden, width], down],
    };
    const others = [...weights].filter(([path]) => !path.startsWith(at));
    const all = [
      ...others.map(([name, { shape, values }]) => [name, [shape, values]] as const),
      ...Object.entries(stacks),
    ];
    const tensors = all.map(([name, [shape, values]]) => ({
      name,
      dtype: "F32" as const,
      shape,
      bytes: () => encodeTensor("f32", Float32Array.from(values)),
    }));
    const files = new Map<string, Uint8Array | string>([
      ["config.json", JSON.stringify(raw)],
      ["model.safetensors", await serialize(tensors)],
    ]);
    return { model, weights, files };
  }

  test("they are read as the matrices of single experts, streamed or not, and written as they were", async () => {
    const { model, weights, files } = await stackedByHand();
    const again = await loadModelFrom(memoryFiles(files), { device });
    assert.deepEqual([...again.stateDict().keys()], [...model.stateDict().keys()]);
    for (const [r, ids] of IDS.entries()) {
      const logits = await again.forward([ids]).data();
      const expected = expectedLogits(raw, model, weights, ids).flat();
      assertNear([...logits], expected, 1e-4, `logits of row ${r}`);
    }
    const streamed = await loadModelFrom(memoryFiles(files), { device, stream: true });
    const batch = { inputIds: IDS };
    assert.equal(await streamed.streamed!.loss(batch), await model.loss(batch).item());
    await streamed.streamed!.free();
    const written = await collect(again.files({ experts: "stacked" }));
    const { entries } = await openWeights(memoryFiles(written));
    assert.deepEqual([...entries.keys()].filter((name) => name.startsWith(at)).sort(), [`${at}.down_proj`, `${at}.gate_up_proj`]); // prettier-ignore
    for (const map of [files, written]) map.delete("config.json");
    assert.deepEqual(await tensorsOf(written), await tensorsOf(files));
  });

  test("a stack of another shape is refused by name, and so is one beside single matrices", async () => {
    const { files, model } = await stackedByHand();
    const fewer = new Map([...files, ["config.json", JSON.stringify({ ...raw, num_experts: 4 })] as const]);
    const shape = /experts\.gate_up_proj.*found shape \[5, 14, 16\]; expected \[4, 14, 16\]/;
    await assert.rejects(loadModelFrom(memoryFiles(fewer), { device }), shape);
    const [single, stacks] = [await tensorsOf(await collect(model.files())), await tensorsOf(files)];
    const both = [...new Map([...single, ...stacks])].map(([name, { dtype, shape, bytes }]) => ({ name, dtype, shape, bytes: () => bytes })); // prettier-ignore
    const twice = new Map([...files, ["model.safetensors", await serialize(both)] as const]);
    await assert.rejects(loadModelFrom(memoryFiles(twice), { device }), /2 unexpected: .*experts\.down_proj/);
  });
});

/** The tensors of files, with their bytes, in the order of their names. */
async function tensorsOf(files: ReadonlyMap<string, Uint8Array | string>) {
  const opened = await openWeights(memoryFiles(files));
  const names = [...opened.entries.keys()].sort();
  return new Map(await Promise.all(names.map(async (name) => [name, await opened.read(name)] as const)));
}

test("Gemma's embeddings are scaled by √hidden as the file's precision has it, whatever the config states", async () => {
  const device = reference();
  const raw = { ...FAMILIES["gemma2"], hidden_size: 12, torch_dtype: "float16" };
  const { model } = randomModel(raw, device);
  for (const [dtype, scale] of [
    ["bf16", 3.46875],
    ["f16", 3.46484375],
    ["f32", Math.fround(Math.sqrt(12))],
  ] as const) {
    const files = await collect(model.files({ dtype }));
    files.set("config.json", JSON.stringify(raw));
    const { config } = await loadModelFrom(memoryFiles(files), { device });
    assert.equal(config.embedScale, scale, dtype);
  }
  device.close();
});
