/** A kernel touches no more buffers than the device binds, whatever has to be stored beside it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Device, grad, operandsOfStep, type Program, type Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import { parameter, Recorder, recording } from "./support.ts";

/** The most buffers that a step of the program touches. */
function widest({ steps }: Program): number {
  const buffersOf = ({ reads, writes }: ReturnType<typeof operandsOfStep>): number =>
    new Set([...reads, ...writes].map(({ buffer }) => buffer)).size;
  return Math.max(0, ...steps.map((step) => buffersOf(operandsOfStep(step))));
}

/** The gradient of one element that is a query, a key and a value: a sum of terms that are read from many buffers. */
function gradientOfOneElement(device: Device): Tensor {
  const leaf = parameter(device, [1, 1], "leaf");
  const x = leaf.square().add(0.5).log();
  const q = x.reshape([1, 1, 1, 1]);
  const attended = nn.scaledDotProductAttention(q, q.tanh(), q.flip(2), { causal: true });
  return grad(
    x
      .maximum(attended.reshape([1, 1]))
      .tanh()
      .mean(),
    [leaf],
  )[0]!;
}

test("operands that are stored late leave a kernel within the device's bindings", async () => {
  for (const maxOperands of [8, 9]) {
    const { device, recorder } = recording({}, new Recorder(maxOperands));
    await gradientOfOneElement(device).data();
    assert.deepEqual(recorder.programs.map(widest).filter((n) => n > maxOperands), []); // prettier-ignore
  }
});
