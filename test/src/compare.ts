/** Runs programs on a backend and compares every element of every buffer with the yardstick. */
import {
  type Backend,
  BYTES,
  type DeviceBuffer,
  type DType,
  bf16ToF32,
  f16ToF32,
  operandsOfStep,
  viewBytes,
} from "@tiedlora/core";
import { BoundsBackend } from "./bounds/backend.ts";
import type { Precision } from "./bounds/precision.ts";
import type { ProgramCase } from "./generate/builder.ts";
import { printProgram } from "./print.ts";
import { randomArray } from "./prng.ts";

/** How many of the compared elements had a finite bound. A test whose values are all unbounded tests nothing. */
export interface Coverage {
  elements: number;
  bounded: number;
}

/** What a buffer held after a run, decoded to numbers. */
interface Contents {
  readonly values: Float64Array;
  /** Error bounds; null unless the backend is the yardstick. */
  readonly errors: Float64Array | null;
}

/** Decodes raw storage to numbers. */
function decode(dtype: DType, bytes: ArrayBuffer): Float64Array {
  const raw = viewBytes(dtype, bytes, 0, Math.floor(bytes.byteLength / BYTES[dtype]));
  return Float64Array.from(raw, dtype === "f16" ? f16ToF32 : dtype === "bf16" ? bf16ToF32 : (x) => x);
}

/** The case with other data and scalars for each `repeat`. Scalars that move views become smaller, so that views stay in range. */
function variant(test: ProgramCase, repeat: number): ProgramCase {
  if (repeat === 0) return test;
  const operands = test.program.steps
    .map(operandsOfStep)
    .flatMap(({ reads, writes }) => [...reads, ...writes]);
  const starts = new Set(operands.flatMap(({ view }) => view.moving ?? []).map(({ slot }) => slot));
  const changed = (x: number, slot: number): number =>
    starts.has(slot) ? Math.max(0, x - repeat) : x + repeat;
  const data = test.data.map((array, i) =>
    randomArray(test.dtypes[i]!, array.length, 1000 * repeat + i, test.special),
  );
  return { ...test, data, scalars: test.scalars.map(changed) };
}

/**
 * The case with longer inputs, and with views in them that start after what the program names; for backends that allow it. Views of buffers
 * that are written stay where they are. Null if none can start later.
 */
function slid(test: ProgramCase): ProgramCase | null {
  const { buffers, steps } = test.program;
  const scalars = test.scalars.slice();
  const longer = test.data.map(() => 0);
  const [moved, fixed] = [new Map<number, { buffer: number; factor: number }>(), new Set<number>()];
  for (const step of steps) {
    const { reads, writes } = operandsOfStep(step);
    for (const { buffer, view } of [...reads, ...writes])
      for (const { slot, factor } of view.moving ?? []) {
        const isWritten =
          buffers[buffer]!.kind !== "input" || buffers.some(({ aliasOf }) => aliasOf === buffer);
        if (isWritten) fixed.add(slot);
        else moved.set(slot, { buffer, factor });
      }
  }
  let by = 3;
  for (const [slot, { buffer, factor }] of moved) {
    if (fixed.has(slot)) continue;
    scalars[slot]! += ++by;
    longer[buffer] = Math.max(longer[buffer]!, by * factor);
  }
  if (longer.every((more) => more === 0)) return null;
  const data = test.data.map((array, i) =>
    longer[i] === 0 ? array : randomArray(test.dtypes[i]!, array.length + longer[i]!, 77 + i, test.special),
  );
  return { ...test, data, scalars };
}

/** Allocates the buffers of one run; null for temporaries and aliases. */
function allocate(backend: Backend, { program, data }: ProgramCase): (DeviceBuffer | null)[] {
  return program.buffers.map((spec, i) => {
    if (spec.kind === "temp" || spec.aliasOf !== undefined) return null;
    const buffer = backend.alloc(Math.max(spec.bytes, data[i]!.byteLength));
    buffer.write(data[i]!);
    return buffer;
  });
}

/** Compiles a program, submits it for each of `tests` at once, and returns the contents of all buffers. */
async function runAll(backend: Backend, tests: readonly ProgramCase[]): Promise<(Contents | null)[][]> {
  const { program, dtypes } = tests[0]!;
  const executable = await backend.compile(program);
  const sets = tests.map((test) => allocate(backend, test));
  try {
    for (const [k, buffers] of sets.entries()) {
      const passed = (kind: "input" | "output"): DeviceBuffer[] =>
        program.buffers.flatMap((spec, i) => (spec.kind === kind ? [buffers[spec.aliasOf ?? i]!] : []));
      executable.run(passed("input"), passed("output"), tests[k]!.scalars);
    }
    const results: (Contents | null)[][] = [];
    for (const buffers of sets) {
      const contents: (Contents | null)[] = [];
      for (const [i, buffer] of buffers.entries()) {
        const values = buffer && decode(dtypes[i]!, await buffer.read());
        contents.push(
          values && { values, errors: backend instanceof BoundsBackend ? backend.lastErrors : null },
        );
      }
      results.push(contents);
    }
    await backend.sync();
    return results;
  } finally {
    executable.free();
    for (const buffers of sets) for (const buffer of buffers) buffer?.free();
  }
}

/** How an executable is compared with the reference. */
export interface CheckOptions {
  readonly coverage: Coverage;
  /** How often the executable is run, each time on other buffers. */
  readonly repeats: number;
  readonly precision?: Precision | undefined;
}

/** Throws unless `backend` computes `test` to within the yardstick's bounds. */
export async function checkProgram(
  backend: Backend,
  test: ProgramCase,
  options: CheckOptions,
): Promise<void> {
  const { coverage, repeats, precision } = options;
  const tests = Array.from({ length: repeats }, (_, i) => variant(test, i));
  const later = backend.caps.slides ? slid(tests.at(-1)!) : null;
  if (later) tests.push(later);
  const expected = await runAll(new BoundsBackend(precision ? { precision } : {}), tests);
  const found = await runAll(backend, tests);
  const written = new Set(
    test.program.buffers.flatMap((b, i) => (b.kind === "output" ? [b.aliasOf ?? i] : [])),
  );
  const unused: Coverage = { elements: 0, bounded: 0 };
  expected.forEach((buffers, run) =>
    buffers.forEach((want, i) => {
      if (!want?.errors) return;
      const counted = written.has(i) ? coverage : unused; // inputs must only stay unchanged, so they do not count
      const complaint = firstDifference(found[run]![i]!.values, want.values, want.errors, counted);
      if (complaint) throw new Error(`run ${run}, buffer ${i}, ${complaint}\n${printProgram(test.program)}`);
    }),
  );
}

/** Describes the first element that differs by more than its bound, or returns null. */
export function firstDifference(
  found: ArrayLike<number>,
  exact: ArrayLike<number>,
  errors: ArrayLike<number>,
  coverage: Coverage,
): string | null {
  if (found.length !== exact.length) return `${found.length} elements instead of ${exact.length}`;
  for (let i = 0; i < exact.length; i++) {
    const [value, want, error] = [found[i]!, exact[i]!, errors[i]!];
    coverage.elements++;
    if (error === Infinity) continue;
    coverage.bounded++;
    if (Object.is(value, want) || value === want || Math.abs(value - want) <= error) continue;
    return `element ${i} of ${exact.length}: ${value} instead of ${want} ± ${error.toExponential(2)}`;
  }
  return null;
}
