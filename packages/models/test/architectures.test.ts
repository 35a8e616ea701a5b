/** What every architecture must do besides computing its formulas (parity.ts): train, and be saved and loaded again. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { concat, grad, key, memoryFiles, normalArray, reference } from "@tiedlora/core";
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
