import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, suite, test } from "node:test";
import { grad, reference, serialize } from "@tiedlora/core";
import * as optim from "@tiedlora/nn/optim";
import { configFrom, createModel, modelFiles } from "@tiedlora/models";
import { writeFilesAtomic } from "@tiedlora/core/node";
import { adapt, FACTOR_NAMES, methods, type FactorName } from "tiedlora";
import { replay, withinLimits } from "../oracle.ts";

const folder = mkdtempSync(join(tmpdir(), "oracle-"));
after(() => rmSync(folder, { recursive: true, force: true }));
const RUNS = join(folder, "runs");
const MODEL = join(folder, "model");
const [ROWS, LENGTH, BATCH, STEPS, RANK] = [6, 7, 2, 5, 2];

interface Tensors {
  readonly [name: string]: { readonly shape: readonly number[]; readonly values: Float32Array | Int32Array };
}

/** Records a run of our own in the same format as the runs of PyTorch; `distort` changes what is written. */
async function record(
  name: string,
  distort: (tensors: Tensors, losses: number[]) => void = () => {},
): Promise<void> {
  const device = reference();
  const model = createModel(
    configFrom({
      model_type: "llama",
      vocab_size: 17,
      hidden_size: 8,
      intermediate_size: 12,
      num_hidden_layers: 2,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      initializer_range: 0.4,
    }),
    { device, seed: 1 },
  );
  await writeFilesAtomic(MODEL, modelFiles(model));
  const method = methods.tl6({ rank: RANK });
  const adapter = adapt(model, method, { seed: 7 });
  const inputIds = Int32Array.from({ length: ROWS * LENGTH }, (_, i) => (i * i) % 17);
  const mask = Float32Array.from({ length: ROWS * LENGTH }, (_, i) => Number(i % LENGTH > 2));
  const batch = (step: number): Parameters<typeof model.loss>[0] => {
    const from = (step % (ROWS / BATCH)) * BATCH * LENGTH;
    const part = [from, from + BATCH * LENGTH] as const;
    const shape = [BATCH, LENGTH];
    return {
      inputIds: device.tensor(inputIds.slice(...part), { shape, dtype: "i32" }),
      mask: device.tensor(mask.slice(...part), { shape }),
    };
  };
  const factor = (one: FactorName): typeof parameters =>
    parameters.filter(([path]) => path.endsWith(`.${one}`));
  const parameters = [...adapter.stateDict()];
  const tensors: Record<string, Tensors[string]> = {
    input_ids: { shape: [ROWS, LENGTH], values: inputIds },
    loss_mask: { shape: [ROWS, LENGTH], values: mask },
  };
  const keep = async (kind: string, values: (one: FactorName) => Promise<Float32Array[]>): Promise<void> => {
    for (const one of FACTOR_NAMES) {
      const all = Float32Array.from((await values(one)).flatMap((v) => [...v]));
      tensors[`${kind}.${one}`] = { shape: [all.length], values: all };
    }
  };
  const current = (one: FactorName): Promise<Float32Array[]> =>
    Promise.all(factor(one).map(async ([, p]) => Float32Array.from(await p.data())));
  await keep("init", current);
  const gradients = (one: FactorName): Promise<Float32Array[]> =>
    Promise.all(grad(model.loss(batch(0)), factor(one).map(([, p]) => p)).map(async (g) => Float32Array.from(await g.data()))); // prettier-ignore
  await keep("grad0", gradients);
  const optimizer = optim.adamW(adapter.parameters(), { lr: 0.01, betas: [0.9, 0.98], weightDecay: 0.1 });
  const losses: number[] = [];
  for (let step = 0; step < STEPS; step++) {
    const loss = model.loss(batch(step));
    optimizer.step(loss);
    losses.push(await loss.item());
  }
  await keep("final", current);
  device.close();
  distort(tensors, losses);
  const settings = {
    method: "tl6",
    trained: [...FACTOR_NAMES],
    tied: true,
    rank: RANK,
    steps: STEPS,
    lr: 0.01,
  };
  const rest = { betas: [0.9, 0.98], eps: 1e-8, weight_decay: 0.1, batch: BATCH, seq: LENGTH, losses };
  mkdirSync(RUNS, { recursive: true });
  writeFileSync(join(RUNS, `${name}.json`), JSON.stringify({ ...settings, ...rest }));
  const entries = Object.entries(tensors).map(([path, { shape, values }]) => ({
    name: path,
    dtype: values instanceof Int32Array ? ("I32" as const) : ("F32" as const),
    shape,
    bytes: () => Promise.resolve(new Uint8Array(values.buffer)),
  }));
  writeFileSync(join(RUNS, `${name}.safetensors`), await serialize(entries));
}

async function replayed(name: string): Promise<Awaited<ReturnType<typeof replay>>> {
  const device = reference();
  try {
    return await replay(RUNS, name, MODEL, device);
  } finally {
    device.close();
  }
}

suite("a replay", () => {
  test("of a run as it was deviates in nothing", async () => {
    await record("same");
    const { losses, gradients, finals, seconds: _ } = await replayed("same");
    assert.deepEqual([losses, gradients, ...finals.values()], [0, 0, 0, 0, 0, 0]);
    assert.deepEqual([...finals.keys()].sort(), [...FACTOR_NAMES].sort());
  });

  const distortions: Readonly<Record<string, (tensors: Tensors, losses: number[]) => void>> = {
    loss: (_, losses) => (losses[3]! *= 1 + 2e-5),
    nan: (_, losses) => (losses[1] = NaN),
    gradient: (tensors) => tensors["grad0.B"]!.values.forEach((x, i, all) => (all[i] = x * 1.001)),
    final: (tensors) => (tensors["final.u"]!.values[1]! += 1e-3),
    start: (tensors) => (tensors["init.A"]!.values[0]! += 1e-2),
  };
  for (const [name, distort] of Object.entries(distortions)) {
    test(`finds a ${name} that is not what was recorded`, async () => {
      await record(name, distort);
      assert.equal(withinLimits(await replayed(name)), false);
    });
  }
});
