/** Programs that are made of those of other sizes: they must be the programs that planning would give. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Device, type Node, ReferenceBackend } from "@tiedlora/core";
import type { Traced } from "../src/explain.ts";
import * as optim from "@tiedlora/nn/optim";
import fc from "fast-check";
import { planFor, type Update } from "../src/plan.ts";
import { show } from "./plan/common.ts";
import { randomGraph, Tape } from "./plan/graphs.ts";
import { TinyGpt } from "./support.ts";

/** What a graph is executed by, without what belongs to one run. */
function planned(device: Device, roots: readonly Node[], updates: readonly Update[] = []): object {
  const { program, rules, inputs, outputs, fresh, results, usesData } = planFor(device, roots, updates);
  return { program, rules, inputs, outputs, fresh, results, usesData };
}

const open = (): Device => new Device(new ReferenceBackend());
/** Some are equal to other lengths of the graphs, or to their products. */
const LENGTHS = [7, 11, 8, 13, 10, 17, 9, 12, 14, 36, 6, 5, 16, 24, 4, 3, 2, 1];

test("programs of random graphs at other lengths are those that planning gives", () => {
  let made = 0;
  const tapes = fc.noBias(fc.array(fc.nat(5039), { minLength: 20, maxLength: 120, size: "max" }));
  fc.assert(
    fc.property(tapes, (numbers) => {
      const device = open();
      for (const length of LENGTHS) {
        const roots = randomGraph(new Tape(numbers, [length, length, 2, 6, 1], 1e5));
        const before = device.families.counts.made;
        const program = planned(device, roots);
        if (device.families.counts.made === before) continue;
        made++;
        assert.deepEqual(program, planned(open(), roots), `length ${length} of\n${show(roots)}`);
      }
    }),
    { numRuns: Number(process.env["PLAN_RUNS"] ?? 40) },
  );
  assert.ok(made > 20, `only ${made} programs were made of others`);
});

test("every second element of odd lengths is not computed by a program of even ones", async () => {
  const device = open();
  for (const length of [8, 12, 16, 20, 24, 15, 11]) {
    const x = device.tensor(Float32Array.from({ length }, (_, i) => i));
    const expected = Float32Array.from({ length: Math.ceil(length / 2) }, (_, i) => 2 * i + 1);
    assert.deepEqual(await x.slice([0, length, 2]).add(1).data(), expected, `length ${length}`);
  }
  assert.equal(device.families.counts.made, 2);
});

test("at a length that is equal to the number of other elements, kernels are joined as planning would", () => {
  const device = open();
  const rootsOf = (length: number): readonly Node[] =>
    [[length], [3, 3]].map((shape) => {
      const values = new Float32Array(shape.reduce((a, b) => a * b));
      return device.tensor(values, { shape }).exp().node;
    });
  for (const length of [7, 11, 13, 5, 15, 9]) {
    const roots = rootsOf(length);
    assert.deepEqual(planned(device, roots), planned(open(), roots), `length ${length}`);
  }
  assert.equal(device.families.counts.made, 2);
});

test("a training step of many lengths, some of which are also widths, is planned for few of them, and made as planning would", () => {
  const sizes = { layers: 1, dim: 16, heads: 2, vocab: 24 };
  const stepOf = (device: Device): ((length: number) => Traced) => {
    const gpt = new TinyGpt(device, sizes);
    const optimizer = optim.adamW(gpt.parameters(), { lr: 0.01 });
    return (length) => {
      const tokens = Int32Array.from({ length: 2 * length }, (_, i) => (5 * i + length) % 24);
      const ids = device.tensor(tokens, { shape: [2, length] });
      const loss = gpt.loss(ids, ids);
      return optimizer.trace(loss);
    };
  };
  const lengths = [33, 39, 35, 37, 41, 43, 45, 47, 34, 42, 51, 61, 48, 64];
  const device = open();
  const [step, alone] = [stepOf(device), stepOf(new Device(new ReferenceBackend()))];
  for (const length of lengths) {
    const traced = step(length);
    const before = device.families.counts.made;
    const known = planned(device, roots(traced), traced.updates);
    if (device.families.counts.made === before) continue;
    const other = alone(length);
    assert.deepEqual(known, planned(open(), roots(other), other.updates), `length ${length}`);
  }
  assert.deepEqual(device.families.counts, { planned: 3, made: 11 });
});

/** The nodes that a step computes and hands over. */
const roots = ({ tensors }: Traced): readonly Node[] => tensors.map(({ node }) => node);
