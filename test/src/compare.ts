/** Runs programs on a backend and compares every element of every buffer with the yardstick. */
import {
  type Backend,
  BYTES,
  type DType,
  bf16ToF32,
  f16ToF32,
  type TypedArray,
  viewBytes,
} from "@tiedlora/core";
import { BoundsBackend } from "./bounds/backend.ts";
import type { Precision } from "./bounds/precision.ts";
import type { ProgramCase } from "./generate/builder.ts";
import { printProgram } from "./print.ts";

/** How much of what was compared had a bound at all; a test whose values are all unbounded tests nothing. */
export interface Coverage {
  elements: number;
  bounded: number;
}

/** What a buffer held after a run, decoded to numbers. */
interface Contents {
  readonly values: Float64Array;
  /** Bounds of the errors, where the backend knows them. */
  readonly errors: Float64Array | null;
}

/** The numbers that raw storage holds. */
export function decode(dtype: DType, bytes: ArrayBuffer): Float64Array {
  const raw = viewBytes(dtype, bytes, 0, Math.floor(bytes.byteLength / BYTES[dtype]));
  return Float64Array.from(raw, dtype === "f16" ? f16ToF32 : dtype === "bf16" ? bf16ToF32 : (x) => x);
}

/** Runs `test` once and returns the contents of its input and output buffers (null for temporaries). */
export async function runProgram(backend: Backend, test: ProgramCase): Promise<(Contents | null)[]> {
  const { program, data, dtypes, scalars } = test;
  const buffers = program.buffers.map((spec, i) => {
    if (spec.kind === "temp" || spec.aliasOf !== undefined) return null;
    const buffer = backend.alloc(spec.bytes);
    buffer.write(data[i] as TypedArray);
    return buffer;
  });
  const passed = (kind: "input" | "output") =>
    program.buffers.flatMap((spec, i) => (spec.kind === kind ? [buffers[spec.aliasOf ?? i]!] : []));
  const executable = await backend.compile(program);
  try {
    executable.run(passed("input"), passed("output"), scalars);
    const out: (Contents | null)[] = [];
    for (const [i, buffer] of buffers.entries()) {
      if (!buffer) out.push(null);
      else {
        const values = decode(dtypes[i]!, await buffer.read());
        out.push({ values, errors: backend instanceof BoundsBackend ? backend.lastErrors : null });
      }
    }
    await backend.sync();
    return out;
  } finally {
    executable.free();
    for (const buffer of buffers) buffer?.free();
  }
}

/** Throws unless `backend` computes `test` to within the yardstick's bounds. */
export async function checkProgram(
  backend: Backend,
  test: ProgramCase,
  coverage: Coverage,
  precision?: Precision,
): Promise<void> {
  const yardstick = new BoundsBackend(precision ? { precision } : {});
  const expected = await runProgram(yardstick, test);
  const found = await runProgram(backend, test);
  expected.forEach((want, i) => {
    if (!want?.errors) return;
    const complaint = firstDifference(found[i]!.values, want.values, want.errors, coverage);
    if (complaint) throw new Error(`buffer ${i}, ${complaint}\n${printProgram(test.program)}`);
  });
}

/** Describes the first element that is further off than its bound allows, or returns null. */
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
