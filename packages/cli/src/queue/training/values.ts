/** The values of an adapter, and its gradients, as bytes. */
import { type Files, memoryFiles } from "@tiedlora/core";
import type { Adapter, MicroGradients, OutputFile } from "tiedlora";
import { pack, unpack } from "../store.ts";

const bytesOf = (values: Float32Array): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** The values of all trained parameters, one after another, in f32. */
export async function trainedValues(adapter: Adapter): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for (const parameter of adapter.trainableParameters())
    parts.push(bytesOf((await parameter.data()) as Float32Array));
  return Buffer.concat(parts);
}

/** Sets all trained parameters. */
export function setTrainedValues(adapter: Adapter, bytes: Uint8Array): void {
  let at = 0;
  for (const parameter of adapter.trainableParameters()) {
    parameter.set(floats(bytes, at, parameter.size));
    at += 4 * parameter.size;
  }
}

/** The header of gradients in bytes: the loss, and the paths with the number of values of each. */
interface Header {
  /** As text: JSON has no NaN. */
  readonly loss: string;
  readonly metrics: readonly (readonly [name: string, value: string])[];
  readonly paths: readonly (readonly [path: string, size: number])[];
}

export function packGradients({ loss, metrics = {}, gradients }: MicroGradients): Uint8Array {
  const all = [...gradients];
  const named = Object.entries(metrics).map(([name, value]) => [name, String(value)] as const);
  const paths = all.map(([path, { length }]) => [path, length] as const);
  return pack(
    { loss: String(loss), metrics: named, paths } satisfies Header,
    ...all.map(([, values]) => bytesOf(values)),
  );
}

export function unpackGradients(bytes: Uint8Array): MicroGradients {
  const { header, body } = unpack(bytes);
  const { loss, metrics, paths } = header as Header;
  const named = Object.fromEntries(metrics.map(([name, value]) => [name, Number(value)]));
  let at = 0;
  const gradients = new Map<string, Float32Array>();
  for (const [path, size] of paths) {
    gradients.set(path, floats(body, at, size));
    at += 4 * size;
  }
  return { loss: Number(loss), metrics: named, gradients };
}

/** The f32 values in bytes: in place if they are aligned, otherwise a copy. */
function floats(bytes: Uint8Array, at: number, count: number): Float32Array {
  const offset = bytes.byteOffset + at;
  if (offset % 4 === 0) return new Float32Array(bytes.buffer, offset, count);
  return new Float32Array(new Uint8Array(bytes.subarray(at, at + 4 * count)).buffer);
}

/** Small files as bytes. */
export async function packFiles(files: readonly OutputFile[]): Promise<Uint8Array> {
  const contents: Uint8Array[] = [];
  for (const [, content] of files) {
    if (typeof content === "string") contents.push(Buffer.from(content));
    else if (content instanceof Uint8Array) contents.push(content);
    else {
      const pieces: Uint8Array[] = [];
      for await (const piece of content) pieces.push(piece);
      contents.push(Buffer.concat(pieces));
    }
  }
  return pack(files.map(([name], i) => [name, contents[i]!.length]), ...contents); // prettier-ignore
}

export function unpackFiles(bytes: Uint8Array, name: string): Files {
  const { header, body } = unpack(bytes);
  const files = new Map<string, Uint8Array>();
  let at = 0;
  for (const [file, size] of header as readonly (readonly [string, number])[]) {
    files.set(file, new Uint8Array(body.subarray(at, at + size))); // a copy, aligned
    at += size;
  }
  return memoryFiles(files, name);
}
