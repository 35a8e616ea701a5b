/** Programs of programs: what is handed on between parts, when parts hand values on themselves. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Backend, type DeviceBuffer, type Program, ReferenceBackend } from "../src/index.ts";
import { HandedOn, type Run, Segmented } from "../src/segments.ts";

/** A run that writes one number of 8 bytes: the sum of those it reads, and of `extra`. */
function adding(reads: readonly object[], write: object, extra: number): Run {
  const buffers = [
    ...reads.map(() => ({ kind: "input" as const, bytes: 8 })),
    { kind: "output" as const, bytes: 8 },
  ];
  const program: Program = { buffers, scalars: 0, steps: [] };
  const numberIn = (buffer: DeviceBuffer): number => new Float64Array((buffer as unknown as { memory: ArrayBuffer }).memory)[0]!; // prettier-ignore
  const run = (inputs: readonly DeviceBuffer[], [output]: readonly DeviceBuffer[]): void =>
    output!.write(Float64Array.of(inputs.reduce((sum, input) => sum + numberIn(input), extra)));
  return {
    of: { program, executable: { tempBytes: 0, run, free: () => undefined } },
    reads,
    writes: [write],
    scalars: [],
  };
}

/** A program that adds 10 to what it reads, in `steps` parts, of which all but the last hand their number on. */
function chain(memory: HandedOn, reads: object, steps: number): Segmented {
  const values = Array.from({ length: steps + 1 }, (_, i) => (i === 0 ? reads : {}));
  const runs = values.slice(1).map((value, i) => adding([values[i]!], value, 10 / steps));
  return new Segmented(runs, [reads], [values.at(-1)!], memory, () => undefined);
}

const numberOf = async (buffer: DeviceBuffer): Promise<number> => new Float64Array(await buffer.read())[0]!;

test("a part that hands values on itself leaves those that are handed on around it", async () => {
  const backend: Backend = new ReferenceBackend();
  const memory = new HandedOn(backend);
  const [given, kept, passed, chained, result] = [{}, {}, {}, {}, {}];
  const inner = chain(memory, {}, 5);
  const around = adding([passed], chained, 0);
  const part: Run = { ...around, of: { program: around.of.program, executable: inner } };
  const runs = [
    adding([given], kept, 1),
    adding([given], passed, 2),
    part,
    adding([kept, chained], result, 0),
  ];
  const whole = new Segmented(runs, [given], [result], memory, () => undefined);
  const outermost = chain(memory, {}, 2);
  const [input, output] = [backend.alloc(8), backend.alloc(8)];
  input.write(Float64Array.of(100));
  for (let i = 0; i < 2; i++) {
    whole.run([input], [output], new Float64Array(0));
    assert.equal(await numberOf(output), 101 + 112);
    outermost.run([input], [output], new Float64Array(0));
    assert.equal(await numberOf(output), 110);
  }
  for (const one of [whole, inner, outermost]) one.free();
  assert.equal(backend.memory().liveBytes, 16, "memory that is handed on is freed with the last program");
});
