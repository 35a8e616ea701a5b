/** Tests of packed rows for every backend: each sequence must be computed as if it were alone. */
import { describe, test } from "node:test";
import { concat, type Device, grad, realize, type Tensor } from "@tiedlora/core";
import type { Decoder } from "../../src/decoder.ts";
import { lengthMatters } from "../../src/rope.ts";
import { MODELS, randomModel } from "./models.ts";
import { assertNear } from "./near.ts";

const token = (i: number): number => (7 * i + 3) % 23;
const sequence = (from: number, length: number): number[] =>
  Array.from({ length }, (_, t) => token(from + t));

/** Two rows of sequences, shorter and longer than every window and every original length; the first row is padded. */
const ROWS = [
  [sequence(0, 10), sequence(40, 4), sequence(80, 2)],
  [sequence(20, 3), sequence(60, 9), sequence(90, 7)],
];
const LENGTH = Math.max(...ROWS.map((row) => row.flat().length));

const padded = (values: number[], fill: number, length = LENGTH): number[] => [
  ...values,
  ...Array<number>(length - values.length).fill(fill),
];
const PACKED = {
  inputIds: ROWS.map((row) => padded(row.flat(), 5)),
  // The first tokens of the later sequences are asked for too: nothing but their segments says that they do not count.
  mask: ROWS.map((row) =>
    padded(
      row.flat().map((_, t) => Number(t % 5 !== 3)),
      0,
    ),
  ),
  segments: ROWS.map((row) =>
    padded(
      row.flatMap((ids, i) => ids.map(() => i)),
      -1,
    ),
  ),
};
/** Each sequence with its part of the mask. */
const ALONE = ROWS.flatMap((row, r) => {
  let at = 0;
  return row.map((ids) => ({ ids, mask: PACKED.mask[r]!.slice(at, (at += ids.length)) }));
});

/** The mean over the sequences alone: a row each; or a batch each, where the length of a row changes what is computed. */
function lossAlone(model: Decoder): Tensor {
  if (!lengthMatters(model.config)) {
    const longest = Math.max(...ALONE.map(({ ids }) => ids.length));
    const inputIds = ALONE.map(({ ids }) => padded(ids, 5, longest));
    return model.loss({ inputIds, mask: ALONE.map(({ mask }) => padded(mask, 0, longest)) });
  }
  const counts = ALONE.map(({ mask }) => mask.slice(1).reduce((a, b) => a + b, 0));
  const total = counts.reduce((a, b) => a + b);
  return ALONE.map(({ ids, mask }, i) =>
    model.loss({ inputIds: [ids], mask: [mask] }).mul(counts[i]! / total),
  ).reduce((a, b) => a.add(b));
}

/** A loss, and all its gradients one after another. */
async function lossAndGradients(loss: Tensor, model: Decoder): Promise<[number, ArrayLike<number>]> {
  const gradients = concat(grad(loss, model.parameters()).map((g) => g.reshape([-1])));
  realize(loss, gradients);
  return [await loss.item(), await gradients.data()];
}

/** Compares loss and gradients of the packed rows with the means over the sequences alone. */
async function compare(model: Decoder): Promise<void> {
  const [alone, expected] = await lossAndGradients(lossAlone(model), model);
  const check = async (): Promise<void> => {
    const [packed, gradients] = await lossAndGradients(model.loss(PACKED), model);
    assertNear([packed], [alone], 1e-5, "loss");
    assertNear(gradients, expected, 1e-5, "gradients");
  };
  await check();
  model.checkpointing = true;
  await check();
}

/** Registers the tests; values and gradients of these models are around 1. */
export function registerPacking(device: () => Device, models: typeof MODELS = MODELS): void {
  describe("computes packed sequences as if each were alone, and their gradients", () => {
    for (const [name, raw] of Object.entries(models)) {
      test(name, async () => {
        const { model } = randomModel(raw, device());
        await compare(model);
      });
    }
  });
}
