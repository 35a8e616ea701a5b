/** Long unrolled loops, for tests of programs that are made of a few iterations each. */
import { type Device, type DType, grad, type Tensor } from "@tiedlora/core";
import type { Tape } from "./graphs.ts";

/** Numbers between -1/2 and 1/2, others for each seed. */
export const numbers = (n: number, seed: number): Float64Array =>
  Float64Array.from({ length: n }, (_, i) => Math.sin(i * 1.7 + seed) / 2);

/** The same as a tensor. */
export const tensor = (device: Device, shape: readonly number[], seed: number, dtype: DType = "f64"): Tensor =>
  device.tensor(numbers(shape.reduce((a, b) => a * b), seed), { shape, dtype }); // prettier-ignore

/** Results of a loop with a random body over states [2, 3], which may read inputs, weights, and values of the iteration before. One iteration is `odd`. */
export function randomLoop(
  device: Device,
  tape: Tape,
  length: number,
  odd: number,
  dtype: DType = "f64",
): Tensor[] {
  const axis = tape.below(2); // of the iterations in the inputs
  const x = tensor(device, axis === 0 ? [length, 2, 3] : [2, length, 3], 1, dtype);
  const weights = [0, 1].map((i) => tensor(device, [3, 3], 2 + i, dtype));
  const bias = tensor(device, [3], 9, dtype);
  const read = tape.below(2) === 0 ? x : x.mul(bias).tanh(); // inputs may be computed
  const picks = Array.from({ length: 26 + tape.below(8) }, () => [
    tape.below(10),
    tape.below(99),
    tape.below(99),
  ]);
  const early = tape.below(length);
  const kept: Tensor[] = [];
  let [state, other] = [tensor(device, [2, 3], 5, dtype), tensor(device, [2, 3], 6, dtype)];
  let before: Tensor[] = [];
  for (let t = 0; t < length; t++) {
    const values = [state, other];
    for (const [kind, i, j] of picks as [number, number, number][]) {
      const [a, b] = [
        values[values.length - 1 - (i % Math.min(values.length, 5))]!,
        values[j % values.length]!,
      ];
      if (kind === 0) values.push(a.add(b).tanh());
      else if (kind === 1) values.push(a.mul(b));
      else if (kind === 2) values.push(a.sub(b).sin());
      else if (kind === 3) values.push(a.matmul(weights[j % 2]!).tanh());
      else if (kind === 4) values.push(a.add(bias));
      else if (kind === 5)
        values.push(a.mul(read.narrow(axis, j % 2 === 0 ? t : length - 1 - t, 1).reshape([2, 3])));
      else if (kind === 6) values.push(a.add(before[j % Math.max(before.length, 1)] ?? b));
      else if (kind === 7) values.push(a.sub(b.sum(1, { keepdims: true })).tanh());
      else if (kind === 8)
        values.push(a.mul(b).tanh(), a.mul(b).tanh()); // the same twice
      else values.push(a.reshape([3, 2]).transpose().reshape([2, 3]).sub(b).cos());
    }
    if (t === odd) values.push(values.at(-1)!.mul(0.5).cos());
    before = values.slice(-3);
    [state, other] = [values.at(-1)!.tanh(), state.add(values.at(-2)!).mul(0.5)];
    if (t === early) kept.push(state, state.transpose());
  }
  const loss = state.add(other).square().sum();
  return [loss, state, ...kept, ...grad(loss, [...weights, bias, x])];
}
