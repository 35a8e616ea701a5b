/** Runs one step on a backend and on the float64 reference, from the same bytes, and compares the buffers that they wrote. */
import assert from "node:assert/strict";
import {
  type Backend,
  bf16ToF32,
  type BufferSpec,
  BYTES,
  type DType,
  f16ToF32,
  f32ToBf16,
  f32ToF16,
  type Operand,
  type Program,
  runStep,
  type Step,
  viewBytes,
} from "@tiedlora/kernels";

/** A buffer of the step under test. */
export interface TestBuffer {
  readonly dtype: DType;
  readonly length: number;
}

/** Deterministic numbers in [-2, 2), or small integers. */
export function fill(dtype: DType, bytes: ArrayBuffer, seed: number): void {
  const data = viewBytes(dtype, bytes);
  let state = seed * 2654435761 + 12345;
  for (let i = 0; i < data.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const unit = state / 2 ** 32;
    const value = unit * 4 - 2;
    if (dtype === "f32") data[i] = value;
    else if (dtype === "f16") data[i] = f32ToF16(value);
    else if (dtype === "bf16") data[i] = f32ToBf16(value);
    else if (dtype === "bool") data[i] = unit < 0.5 ? 0 : 1;
    else if (dtype === "i32") data[i] = Math.floor(unit * 21) - 10;
    else data[i] = Math.floor(unit * 21);
  }
}

function decode(dtype: DType, bytes: ArrayBuffer): number[] {
  const raw = [...viewBytes(dtype, bytes)];
  if (dtype === "f16") return raw.map(f16ToF32);
  return dtype === "bf16" ? raw.map(bf16ToF32) : raw;
}

/** The buffers' contents after `steps` on `backend`, which gets all of them as inputs that it updates in place. */
export async function runOn(
  backend: Backend,
  steps: readonly Step[],
  contents: readonly ArrayBuffer[],
  scalars: readonly number[] = [],
): Promise<ArrayBuffer[]> {
  const buffers: BufferSpec[] = contents.map((c) => ({ kind: "input", bytes: c.byteLength }));
  const program: Program = { buffers, scalars: scalars.length, steps };
  const executable = await backend.compile(program);
  const device = contents.map((c) => {
    const buffer = backend.alloc(c.byteLength);
    buffer.write(new Uint8Array(c));
    return buffer;
  });
  executable.run(device, [], Float64Array.from(scalars));
  const out = await Promise.all(device.map((buffer) => buffer.read()));
  for (const buffer of device) buffer.free();
  executable.free();
  return out;
}

export interface Tolerance {
  readonly absolute: number;
  readonly relative: number;
}

const ROUNDING: { readonly [D in DType]: number } = {
  f32: 0,
  f64: 0,
  f16: 2 ** -10,
  bf16: 2 ** -7,
  i32: 0,
  u32: 0,
  bool: 0,
};

/** Asserts that the step leaves the same content in every buffer on `backend` as on the reference. */
export async function assertSameAsReference(
  backend: Backend,
  steps: readonly Step[],
  buffers: readonly TestBuffer[],
  tolerance: Tolerance,
  scalars: readonly number[] = [],
): Promise<void> {
  const contents = buffers.map(({ dtype, length }, i) => {
    const bytes = new ArrayBuffer(length * BYTES[dtype]);
    fill(dtype, bytes, i + 1);
    return bytes;
  });
  const expected = contents.map((c) => c.slice(0));
  for (const step of steps) runStep(step, expected, scalars);
  const got = await runOn(backend, steps, contents, scalars);
  buffers.forEach(({ dtype }, b) => {
    const [want, have] = [decode(dtype, expected[b]!), decode(dtype, got[b]!)];
    const relative = tolerance.relative + ROUNDING[dtype];
    want.forEach((w, i) => {
      const h = have[i]!;
      if (Object.is(w, h) || (Number.isNaN(w) && Number.isNaN(h)) || w === h) return;
      const error = Math.abs(w - h);
      assert.ok(
        error <= tolerance.absolute + relative * Math.abs(w),
        `buffer ${b} (${dtype}), element ${i}: ${h}, reference ${w}`,
      );
    });
  });
}

/** The elements of its buffer that an operand over `shape` may reach, and the offset that makes them start at 0. */
export function extent(
  strides: readonly number[],
  shape: readonly number[],
): { offset: number; length: number } {
  let [low, high] = [0, 0];
  strides.forEach((stride, d) => {
    const reach = stride * (shape[d]! - 1);
    if (reach < 0) low += reach;
    else high += reach;
  });
  return { offset: -low, length: high - low + 1 };
}

/** Row-major strides. */
export function dense(shape: readonly number[]): number[] {
  const strides: number[] = [];
  let stride = 1;
  for (let d = shape.length - 1; d >= 0; d--) {
    strides[d] = stride;
    stride *= shape[d]!;
  }
  return strides;
}

export function denseOperand(buffer: number, dtype: DType, shape: readonly number[]): Operand {
  return { buffer, dtype, view: { offset: 0, strides: dense(shape) } };
}
