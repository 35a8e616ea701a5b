/** Buffers whose elements have error bounds. Bytes that are written from outside are exact; what a kernel stores is not. */
import {
  bf16ToF32,
  BYTES,
  type DeviceBuffer,
  type DType,
  f16ToF32,
  type Operand,
  viewBytes,
  type View,
} from "@tiedlora/core";
import { encode } from "../prng.ts";

/** Stands for the offset of an element outside its view's valid range. */
export const INVALID: number = -(2 ** 31);

export class BoundsBuffer implements DeviceBuffer {
  readonly bytes: number;
  dtype: DType | null = null;
  values: Float64Array = new Float64Array(0);
  errors: Float64Array = new Float64Array(0);
  readonly #raw: Uint8Array<ArrayBuffer>;
  readonly #onRead: (errors: Float64Array) => void;
  readonly #onFree: (bytes: number) => void;
  #freed = false;

  constructor(bytes: number, onRead: (errors: Float64Array) => void, onFree: (bytes: number) => void) {
    this.bytes = bytes;
    this.#raw = new Uint8Array(bytes);
    this.#onRead = onRead;
    this.#onFree = onFree;
  }

  write(data: ArrayBufferView, offset = 0): void {
    this.#flush();
    this.#raw.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), offset);
  }

  read(offset = 0, bytes: number = this.bytes - offset): Promise<ArrayBuffer> {
    const { dtype, errors } = this;
    this.#flush();
    const width = dtype ? BYTES[dtype] : 4;
    this.#onRead(
      dtype ? errors.slice(offset / width, (offset + bytes) / width) : new Float64Array(bytes / width),
    );
    if (dtype) this.#adopt(dtype, errors);
    return Promise.resolve(this.#raw.buffer.slice(offset, offset + bytes));
  }

  free(): void {
    if (this.#freed) throw new Error("a buffer was freed twice");
    this.#freed = true;
    this.#onFree(this.bytes);
  }

  /** Makes `values` and `errors` those of the buffer interpreted as `dtype`. */
  view(dtype: DType): this {
    if (this.dtype === dtype) return this;
    this.#flush();
    const length = Math.floor(this.bytes / BYTES[dtype]);
    const raw = viewBytes(dtype, this.#raw.buffer, 0, length);
    this.values = Float64Array.from(raw, DECODE[dtype]);
    return this.#adopt(dtype, new Float64Array(length));
  }

  #adopt(dtype: DType, errors: Float64Array): this {
    this.dtype = dtype;
    this.errors = errors;
    return this;
  }

  #flush(): void {
    if (this.dtype === null) return;
    const raw = viewBytes(this.dtype, this.#raw.buffer, 0, this.values.length);
    for (let i = 0; i < raw.length; i++) raw[i] = encode(this.dtype, this.values[i]!);
    this.dtype = null;
  }
}

const same = (x: number): number => x;
const DECODE: { readonly [D in DType]: (x: number) => number } = {
  f32: same,
  f64: same,
  i32: same,
  u32: same,
  bool: same,
  f16: f16ToF32,
  bf16: bf16ToF32,
};

/** The buffer behind `operand`, interpreted as the operand's type. */
export function open(operand: Operand, buffers: readonly BoundsBuffer[]): BoundsBuffer {
  const buffer = buffers[operand.buffer];
  if (!buffer) throw new RangeError(`an operand names buffer ${operand.buffer} of ${buffers.length}`);
  return buffer.view(operand.dtype);
}

/** Element offsets of `view` at the linear indices `start` … `start + count - 1` of `shape`. */
export function offsetsOf(view: View, shape: readonly number[], start: number, count: number): Int32Array {
  const out = new Int32Array(count);
  const index = new Array<number>(shape.length);
  for (let d = shape.length - 1, rest = start; d >= 0; d--) {
    index[d] = rest % shape[d]!;
    rest = Math.floor(rest / shape[d]!);
  }
  for (let i = 0; i < count; i++) {
    let at = view.offset;
    for (let d = 0; d < shape.length; d++) {
      const range = view.valid?.[d];
      if (range && (index[d]! < range[0] || index[d]! >= range[1])) {
        at = INVALID;
        break;
      }
      at += index[d]! * view.strides[d]!;
    }
    out[i] = at;
    for (let d = shape.length - 1; d >= 0 && ++index[d]! === shape[d]; d--) index[d] = 0;
  }
  return out;
}
