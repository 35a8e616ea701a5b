/** Writes GGUF files of version 3 with tensors in f32: metadata, the list of tensors, and their numbers, aligned to 32 bytes. */

const ALIGNMENT = 32;
const TYPES = { u32: 4, f32: 6, text: 8 } as const;
const aligned = (bytes: number): number => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

interface TensorEntry {
  readonly name: string;
  /** As in PyTorch: the axis whose elements are consecutive comes last. */
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

export class GgufWriter {
  readonly #metadata: Uint8Array[] = [];
  readonly #tensors: TensorEntry[] = [];

  /** Adds a text to the metadata. */
  text(key: string, value: string): void {
    this.#metadata.push(textBytes(key), u32(TYPES.text), textBytes(value));
  }
  /** Adds a whole number to the metadata. */
  u32(key: string, value: number): void {
    this.#metadata.push(textBytes(key), u32(TYPES.u32), u32(value));
  }
  /** Adds a number to the metadata. */
  f32(key: string, value: number): void {
    this.#metadata.push(textBytes(key), u32(TYPES.f32), numberBytes(4, (view) => view.setFloat32(0, value, true))); // prettier-ignore
  }

  /** Adds a tensor. */
  tensor(name: string, shape: readonly number[], values: Float32Array): void {
    this.#tensors.push({ name, shape, values });
  }

  /** The file. */
  bytes(): Uint8Array {
    let offset = 0;
    const entries = this.#tensors.flatMap(({ name, shape, values }) => {
      const entry = [
        textBytes(name),
        u32(shape.length),
        ...shape.toReversed().map(u64), // the axis whose elements are consecutive comes first
        u32(0),
        u64(offset),
      ];
      offset += aligned(values.byteLength);
      return entry;
    });
    const head = [new TextEncoder().encode("GGUF"), u32(3), u64(this.#tensors.length), u64(this.#metadata.length / 3)]; // prettier-ignore
    const header = joined([...head, ...this.#metadata, ...entries]);
    const file = new Uint8Array(aligned(header.length) + offset);
    file.set(header);
    let at = aligned(header.length);
    for (const { values } of this.#tensors) {
      const view = new DataView(file.buffer, at);
      for (const [i, value] of values.entries()) view.setFloat32(4 * i, value, true);
      at += aligned(values.byteLength);
    }
    return file;
  }
}

function numberBytes(length: number, write: (view: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(length);
  write(new DataView(bytes.buffer));
  return bytes;
}

const u32 = (value: number): Uint8Array => numberBytes(4, (view) => view.setUint32(0, value, true));
const u64 = (value: number): Uint8Array => numberBytes(8, (view) => view.setBigUint64(0, BigInt(value), true)); // prettier-ignore

function textBytes(text: string): Uint8Array {
  const bytes = new TextEncoder().encode(text);
  return joined([u64(bytes.length), bytes]);
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
