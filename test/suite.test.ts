/** Tests of the suite itself: it finds planted faults, its bounds are no excuse. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Device, ReferenceBackend } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import { BoundsBackend, conformance, RECORDS } from "@tiedlora/test";
import type { Coverage } from "./src/compare.ts";
import { checkForward } from "./src/forward.ts";
import type { InputSpec, OpCase } from "./src/records/record.ts";
import { Yardstick } from "./src/yardstick.ts";
import { FAULTS, faultyBackend } from "./support/faulty.ts";

const MOST_RUNS = 12;

/** What the random kernels say of a backend with a planted fault. */
async function kernelFailures(fault: string, seed: number): Promise<string[]> {
  const suite = conformance(({ fusion }) => new Device(faultyBackend(fault), { fusion }), {
    effort: 2,
    seed,
  });
  const failures: string[] = [];
  for (const { name, run } of suite.cases) {
    if (/^random (?!graphs|numbers)/.test(name))
      await run().catch((error: unknown) => failures.push(String(error)));
  }
  return failures;
}

for (const name of Object.keys(FAULTS)) {
  test(`the kernel cases find a backend in which ${name}`, async () => {
    // A rare fault takes more cases than one run has: as many runs as it takes, each with a seed of its own.
    let failures: string[] = [];
    for (let seed = 1; seed <= MOST_RUNS && failures.length === 0; seed++)
      failures = await kernelFailures(name, seed);
    assert.notEqual(failures.length, 0, "no kernel case failed");
    assert.match(failures[0]!, /seed -?\d+/, "a failure says how to repeat it");
    assert.match(failures[0]!, /step 0: /, "a failure shows the program");
  });
}

test("the share of results with a bound is that of cases whose inputs are all finite", async () => {
  const record = RECORDS.find(({ name }) => name === "einsum")!;
  const device = new Device(new ReferenceBackend());
  const input = (shape: number[]): InputSpec => ({ shape, domain: "any", dtypes: ["f32"] });
  const product: OpCase = {
    call: "einsum",
    inputs: [input([9, 9]), input([9, 9])],
    build: (x) => nn.einsum("ij,jk->ik", ...x),
  };
  const views = Array.from({ length: 5 }, () => ({ kind: 0, order: 0 }));
  const coverage: Coverage = { elements: 0, bounded: 0 };
  const check = (seed: number): Promise<void> =>
    checkForward(device, new Yardstick(), record, product, { seed, dtype: 0, views }, coverage);
  await check(6); // some values of the first input are NaN or infinite
  assert.deepEqual(coverage, { elements: 0, bounded: 0 });
  await check(1);
  assert.deepEqual(coverage, { elements: 243, bounded: 243 });
});

test("a known gap passes while it fails, and fails when it passes", async () => {
  const make = (): Device => new Device(new ReferenceBackend());
  const broken = (): Device => new Device(faultyBackend("le is lt"));
  const gaps = [{ name: "le, forward and backward", reason: "a planted fault" }];
  const run = async (device: () => Device): Promise<void> => {
    const suite = conformance(device, { gaps });
    await suite.cases.find(({ name }) => name.startsWith("le, forward and backward (known gap"))!.run();
  };
  await run(broken);
  await assert.rejects(run(make), /remove it from the known gaps/);
  assert.throws(
    () => conformance(make, { gaps: [{ name: "no such case", reason: "" }] }),
    /no case of the suite/,
  );
});

test("bounds are tight: a hundred roundings wrong is outside of them", async () => {
  const backend = new BoundsBackend();
  const device = new Device(backend, { fusion: "off" });
  const x = device.tensor(Float32Array.from({ length: 64 }, (_, i) => Math.sin(i) + 1.5));
  const cases = [x.mul(x), x.exp(), x.sum(), x.div(x.add(0.1)), x.reshape([8, 8]).matmul(x.reshape([8, 8]))];
  for (const y of cases) {
    const values = await y.data();
    const errors = backend.lastErrors!;
    values.forEach((value, i) =>
      assert.ok(errors[i]! < 100 * 2 ** -23 * Math.abs(value), `${errors[i]} for ${value}`),
    );
  }
  // and exact where every backend is exact
  const whole = device.tensor([1, 2, 3, 4]).mul(3).add(1).sum();
  assert.equal((await whole.data())[0], 34);
  assert.deepEqual([...backend.lastErrors!], [0]);
});
