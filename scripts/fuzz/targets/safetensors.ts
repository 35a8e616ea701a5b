/** Safetensors files, single and in shards: each tensor is read whole and in pieces, and decoded. */
import {
  decodeF32,
  decodeTensor,
  FILE_DTYPE_BYTES,
  type FileDType,
  memoryFiles,
  openWeights,
  serialize,
  type TensorFile,
  type TensorToWrite,
} from "@tiedlora/core";
import type { Random } from "../random.ts";
import { sound, type Target, utf8 } from "../target.ts";

/** The types that can be decoded; of 8-bit floats only the names are known. */
const DTYPES = (Object.keys(FILE_DTYPE_BYTES) as FileDType[]).filter((name) => !name.startsWith("F8"));
const FLOATS: readonly string[] = ["f32", "f16", "bf16", "f64"];

function tensor(name: string, random: Random): TensorToWrite {
  const dtype = random.pick(DTYPES);
  const shape = Array.from({ length: random.below(4) }, () => random.pick([0, 1, 2, 3, 5, 16]));
  const bytes = new Uint8Array(shape.reduce((a, b) => a * b, FILE_DTYPE_BYTES[dtype]));
  for (let i = 0; i < bytes.length; i++) bytes[i] = dtype === "BOOL" ? random.below(2) : 0;
  return { name, dtype, shape, bytes: () => bytes };
}

const NAMES = ["w", "b", "model.layers.0.q", "0", "", "é", "a.b.c.d", "norm"];

export function safetensors(): Target {
  return {
    async seed(random) {
      const count = random.below(5);
      const tensors = NAMES.slice(0, count).map((name) => tensor(name, random));
      const metadata = random.chance(0.5) ? [["format", "pt"] as const, ["note", "x\n{"] as const] : [];
      return new Map([["model.safetensors", await serialize(tensors, metadata)]]);
    },
    read: readAll,
  };
}

export function shards(): Target {
  return {
    async seed(random) {
      const names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
      const parts = [NAMES.slice(0, 1 + random.below(3)), NAMES.slice(4, 5 + random.below(3))];
      const map = Object.fromEntries(parts.flatMap((part, i) => part.map((name) => [name, names[i]])));
      const index = JSON.stringify({ metadata: { total_size: 1 }, weight_map: map });
      const files = await Promise.all(
        parts.map((part) => serialize(part.map((name) => tensor(name, random)))),
      );
      return new Map([
        ["model.safetensors.index.json", utf8(index)],
        ...names.map((name, i): [string, Uint8Array] => [name, files[i]!]),
      ]);
    },
    read: readAll,
    words: [
      "F8_E4M3",
      "model-00001-of-00002.safetensors",
      "../model.safetensors",
      "/etc/passwd",
      ".safetensors",
    ],
  };
}

async function readAll(files: ReadonlyMap<string, Uint8Array>): Promise<void> {
  const file = await openWeights(memoryFiles(files));
  try {
    const held = [...files.values()].reduce((sum, { length }) => sum + length, 0);
    for (const [name, { dtype, shape, begin, end }] of file.entries) {
      sound(Number.isSafeInteger(begin) && Number.isSafeInteger(end), `${name} is at ${begin} to ${end}`);
      sound(
        shape.every((n) => Number.isSafeInteger(n) && n >= 0),
        `${name} has shape [${shape.join()}]`,
      );
      sound(
        shape.reduce((a, b) => a * b, FILE_DTYPE_BYTES[dtype]) === end - begin && end - begin <= held,
        `${name} has ${end - begin} bytes`,
      );
    }
    for (const name of file.entries.keys()) await readOne(file, name);
  } finally {
    await file.close();
  }
}

async function readOne(file: TensorFile, name: string): Promise<void> {
  const data = await file.read(name);
  const half = data.bytes.length >> 1;
  const pieces = [
    await file.readBytes(name, 0, half),
    await file.readBytes(name, half, data.bytes.length - half),
  ];
  sound(Buffer.concat(pieces).equals(data.bytes), `${name} differs when it is read in pieces`);
  const { dtype, values } = decodeTensor(data, file.name, name);
  const count = data.shape.reduce((a, b) => a * b, 1);
  sound(values.length === count, `${name} has ${values.length} values; expected ${count}`);
  if (!FLOATS.includes(dtype)) return;
  sound(decodeF32(data, file.name, name).length === count, `${name} is not all decoded`);
}
