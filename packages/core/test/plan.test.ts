import assert from "node:assert/strict";
import { test } from "node:test";
import { type Backend, Device, type LibraryCall, type Program, ReferenceBackend } from "@tiedlora/core";
import fc from "fast-check";
import * as build from "../src/build.ts";
import { planFor, submit } from "../src/plan.ts";
import { read, show } from "./plan/common.ts";
import { evaluate } from "./plan/evaluate.ts";
import { randomGraph, Tape } from "./plan/graphs.ts";

/** The reference backend, with other capabilities. */
class Limited extends ReferenceBackend {
  override readonly caps: Backend["caps"];
  readonly #accelerated: (call: LibraryCall) => boolean;

  constructor(maxOperands: number, accelerated: (call: LibraryCall) => boolean = () => true) {
    super();
    this.caps = { ...new ReferenceBackend().caps, maxOperands };
    this.#accelerated = accelerated;
  }
  override accelerates(call: LibraryCall): boolean {
    return this.#accelerated(call);
  }
}

const VARIANTS: { readonly [name: string]: () => Device } = {
  fused: () => new Device(new ReferenceBackend()),
  "not fused": () => new Device(new ReferenceBackend(), { fusion: "off" }),
  "without library calls": () => new Device(new ReferenceBackend({ lowerAll: true })),
  "neither fused nor with library calls": () =>
    new Device(new ReferenceBackend({ lowerAll: true }), { fusion: "off" }),
  "at most five buffers": () => new Device(new Limited(5)),
  "matmul without epilogue": () =>
    new Device(
      new Limited(
        64,
        (call) => call.name !== "matmul" || (!call.params.epilogue && call.params.k.length === 1),
      ),
    ),
};

function close(actual: Float64Array, expected: Float64Array, what: string): void {
  assert.equal(actual.length, expected.length, what);
  for (let i = 0; i < expected.length; i++) {
    if (Object.is(actual[i], expected[i])) continue;
    const error = Math.abs(actual[i]! - expected[i]!);
    assert.ok(
      error <= 1e-9 * (1 + Math.abs(expected[i]!)),
      `${what}: [${i}] is ${actual[i]}, not ${expected[i]}`,
    );
  }
}

const tapes = fc.noBias(fc.array(fc.nat(5039), { minLength: 20, maxLength: 250, size: "max" }));

for (const [name, open] of Object.entries(VARIANTS)) {
  test(`a random graph gives what its nodes say: ${name}`, async () => {
    await fc.assert(
      fc.asyncProperty(tapes, async (numbers) => {
        const roots = randomGraph(new Tape(numbers));
        const expected = evaluate(roots, () => assert.fail("there is no device memory in this graph"));
        const device = open();
        const outputs = submit(device, roots);
        for (const [i, root] of roots.entries()) {
          close(await read(root, outputs[i]!), expected[i]!, `root ${i} of\n${show(roots)}`);
        }
      }),
      { numRuns: Number(process.env["PLAN_RUNS"] ?? 300) },
    );
  });
}

export type { Program };
export { build, planFor };
