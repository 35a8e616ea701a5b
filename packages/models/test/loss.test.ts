/** The loss in chunks equals the whole loss, for every way to state the predicted tokens, and holds a fraction of the logits. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { cpu } from "@tiedlora/backend-cpu";
import { type Device, explain, grad, type Parameter, reference, type Tensor } from "@tiedlora/core";
import type { AdapterOptions } from "../src/adapter-choice.ts";
import type { Batch, Decoder } from "../src/decoder.ts";
import { predictedPositions } from "../src/predicted.ts";
import { LLAMA as THREE_LAYERS, randomModel } from "./support/models.ts";
import { assertNear } from "./support/near.ts";

const LLAMA: Readonly<Record<string, unknown>> = { ...THREE_LAYERS, num_hidden_layers: 1 };
const [BATCH, LENGTH, VOCAB] = [3, 17, THREE_LAYERS["vocab_size"] as number];
const rows = (value: (row: number, t: number) => number): number[][] =>
  Array.from({ length: BATCH }, (_, row) => Array.from({ length: LENGTH }, (_, t) => value(row, t)));
const inputIds = rows((row, t) => (7 * row + 5 * t + t * t) % VOCAB);
const few = rows((row, t) => (t % 5 === row ? 0.5 + row : 0));
const segments = rows((_row, t) => Math.floor(t / 6));

const BATCHES: Readonly<Record<string, (device: Device) => Batch>> = {
  "every token": () => ({ inputIds }),
  "a few tokens, weighted": () => ({ inputIds, mask: few }),
  "most tokens": () => ({ inputIds, mask: rows((_row, t) => Number(t > 1)) }),
  segments: () => ({ inputIds, segments, mask: few }),
  labels: () => ({ inputIds, labels: rows((row, t) => (t % 3 === row ? (t + row) % VOCAB : -100)) }),
  "labels under a mask": () => ({ inputIds, mask: few, labels: rows((row, t) => (t > row ? t : -100)) }),
  "a mask on the device": (device) => ({ inputIds, mask: device.tensor(few) }),
};

/** A model whose output embedding is frozen, as under an adapter. */
function frozenHead(raw: typeof LLAMA, device: Device): Decoder {
  const { model } = randomModel(raw, device);
  model.linear("lm_head")!.weight.requiresGrad = false;
  return model;
}

const trained = (model: Decoder): Parameter[] => model.parameters().filter((p) => p.requiresGrad);

/** The loss and the gradients of all parameters that are trained. */
async function lossAndGradients(
  model: Decoder,
  batch: Batch,
  choice?: AdapterOptions,
): Promise<Float64Array> {
  const loss = model.loss(batch, choice);
  const gradients = grad(loss, trained(model));
  const parts = await Promise.all([loss, ...gradients].map((one) => one.data()));
  return Float64Array.from(parts.flatMap((part) => [...part]));
}

/** The most rows that one product with the output embedding has. */
const headRows = (loss: Tensor): number =>
  Math.max(
    ...explain(loss).steps.map(({ name }) =>
      Number(new RegExp(`^matmul (\\d+)×\\d+×${VOCAB}$`).exec(name)?.[1] ?? 0),
    ),
  );

for (const [backend, open, tolerance] of [
  ["reference", () => Promise.resolve(reference()), 1e-6],
  ["cpu", () => cpu({ threads: 2 }), 2e-6],
] as const) {
  describe(`the loss in chunks, on ${backend}`, () => {
    for (const [name, make] of Object.entries(BATCHES)) {
      test(`${name}: loss and gradients are those of all logits at once`, async () => {
        const device = await open();
        const model = frozenHead({ ...LLAMA, tie_word_embeddings: true }, device);
        assert.equal(headRows(model.loss(make(device))), BATCH * (LENGTH - 1));
        const whole = await lossAndGradients(model, make(device));
        for (const rowsAtOnce of [7, 20]) {
          model.maxLogitsBytes = 4 * VOCAB * rowsAtOnce;
          assert.ok(headRows(model.loss(make(device))) <= rowsAtOnce);
          assertNear(await lossAndGradients(model, make(device)), whole, tolerance, `${rowsAtOnce} rows`);
        }
        device.close();
      });
    }
  });
}

test("an adapter of the head still sees the rows of the batch", async () => {
  const device = reference();
  const model = frozenHead(LLAMA, device);
  const shapes = new Set<string>();
  model.linear("lm_head")!.adapter = {
    apply: (x, y) => {
      shapes.add(`${x.rank}: ${x.shape[0]}`);
      return y.mul(2);
    },
  };
  const whole = await lossAndGradients(model, { inputIds, mask: few });
  model.maxLogitsBytes = 4 * VOCAB * 6;
  assertNear(await lossAndGradients(model, { inputIds, mask: few }), whole, 1e-6);
  assert.deepEqual([...shapes], [`3: ${BATCH}`]);
  device.close();
});

test("where nothing is predicted, the loss is NaN, in chunks too", async () => {
  const device = reference();
  const model = frozenHead(LLAMA, device);
  for (const bytes of [model.maxLogitsBytes, 4 * VOCAB]) {
    model.maxLogitsBytes = bytes;
    assert.equal(await model.loss({ inputIds, mask: rows(() => 0) }).item(), NaN);
  }
  device.close();
});

test("only predicted positions go through the head, at few sizes", () => {
  assert.equal(predictedPositions({ mask: rows(() => 1) }, [BATCH, LENGTH]), null);
  const sizes = new Set<number>();
  for (let count = 0; count <= 512; count++) {
    const mask = [Array.from({ length: 1001 }, (_, t) => Number(t > 0 && t <= count))];
    const { index, weight } = predictedPositions({ mask }, [1, 1001])!;
    assert.deepEqual(
      [...index.subarray(0, count)],
      Array.from({ length: count }, (_, t) => t),
    );
    assert.equal(
      weight.reduce((a, b) => a + b),
      count,
    );
    sizes.add(index.length);
  }
  assert.deepEqual([...sizes], [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]);
});

test("a step with a large vocabulary holds one chunk of logits, not all of them", () => {
  const device = reference();
  const model = frozenHead({ ...LLAMA, vocab_size: 20_000 }, device);
  const ids = rows((row, t) => (37 * t + row) % 20_000);
  const temporaries = (): number => {
    const loss = model.loss({ inputIds: ids });
    return explain({ device, tensors: [loss, ...grad(loss, trained(model))], updates: [] }).tempBytes;
  };
  const all = BATCH * (LENGTH - 1) * 20_000 * 4;
  const whole = temporaries();
  model.maxLogitsBytes = all / 8;
  const chunked = temporaries();
  assert.ok(whole >= all, `${whole}`);
  assert.ok(chunked < whole / 3, `${chunked} of ${whole}`);
  device.close();
});
