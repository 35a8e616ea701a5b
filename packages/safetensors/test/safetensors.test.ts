import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, test } from "node:test";
import fc from "fast-check";
import { f32ToBf16, f32ToF16 } from "../src/dtype.ts";
import { decodeF32, decodeTensor, encodeTensor } from "../src/convert.ts";
import { bytesSource, FormatError, memoryFiles, type Source } from "../src/format.ts";
import {
  byteCount,
  FILE_DTYPE_BYTES,
  type FileDType,
  openSafetensors,
  serialize,
  type TensorToWrite,
} from "../src/safetensors.ts";
import { openWeights } from "../src/sharded.ts";
import { directoryFiles, fileSource } from "../src/node.ts";

const shared = process.env["TIEDLORA_SHARED"] ?? resolve(import.meta.dirname, "../../../../shared");
const needsShared = existsSync(shared) ? false : `${shared} is absent`;
const DTYPES = Object.keys(FILE_DTYPE_BYTES) as FileDType[];

interface Sample {
  name: string;
  dtype: FileDType;
  shape: number[];
  content: Uint8Array;
}

const sample: fc.Arbitrary<Sample> = fc
  .record({
    name: fc.oneof(
      fc.string({ unit: "binary", minLength: 0, maxLength: 12 }).filter((s) => s !== "__metadata__"),
      fc.constantFrom("__proto__", "constructor", "10", "2"),
    ),
    dtype: fc.constantFrom(...DTYPES),
    shape: fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 4 }),
  })
  .chain((t) => {
    const length = byteCount(t.dtype, t.shape);
    return fc
      .uint8Array({ minLength: length, maxLength: length })
      .map((content) => ({ ...t, content: t.dtype === "BOOL" ? content.map((b) => b & 1) : content }));
  });
const samples = fc.uniqueArray(sample, { selector: (t) => t.name, maxLength: 6 });

const toWrite = (all: readonly Sample[]): TensorToWrite[] =>
  all.map(({ name, dtype, shape, content }) => ({ name, dtype, shape, bytes: () => content }));

describe("safetensors", () => {
  test("what is written is read back: names, types, shapes, bytes, metadata", async () => {
    const metadata = fc.dictionary(fc.string(), fc.string(), { maxKeys: 4 });
    await fc.assert(
      fc.asyncProperty(samples, metadata, async (all, meta) => {
        const bytes = await serialize(toWrite(all), Object.entries(meta));
        const file = await openSafetensors(bytesSource(bytes));
        assert.deepEqual(Object.fromEntries(file.metadata), { ...meta });
        assert.deepEqual(new Set(file.entries.keys()), new Set(all.map((t) => t.name)));
        for (const { name, dtype, shape, content } of all) {
          assert.deepEqual(await file.read(name), { dtype, shape, bytes: content });
          const from = Math.floor(content.length / 2);
          assert.deepEqual(await file.readBytes(name, from, content.length - from), content.slice(from));
        }
      }),
      { numRuns: 200 },
    );
  });

  test("every tensor starts on a multiple of its element size, so that it can be viewed in place", async () => {
    await fc.assert(
      fc.asyncProperty(samples, async (all) => {
        const file = await openSafetensors(bytesSource(await serialize(toWrite(all))));
        for (const { dtype, begin } of file.entries.values())
          assert.equal(begin % FILE_DTYPE_BYTES[dtype], 0);
      }),
    );
  });

  test("the writer refuses a name given twice and bytes that do not fit", async () => {
    const one: TensorToWrite = { name: "a", dtype: "F32", shape: [2], bytes: () => new Uint8Array(8) };
    await assert.rejects(serialize([one, one]), /"a" is given twice.*tied tensor once/);
    await assert.rejects(serialize([{ ...one, name: "__metadata__" }]), /reserved/);
    await assert.rejects(serialize([{ ...one, shape: [3] }]), /a: 8 bytes given; F32 \[3\] has 12/);
  });

  test("files that Python wrote are written again byte for byte", { skip: needsShared }, async () => {
    const files = readdirSync(join(shared, "fixtures/peft"), { recursive: true, encoding: "utf8" })
      .filter((f) => f.endsWith(".safetensors"))
      .map((f) => join(shared, "fixtures/peft", f));
    assert.ok(files.length >= 20);
    for (const path of files) {
      const original = new Uint8Array(readFileSync(path));
      const file = await openSafetensors(bytesSource(original, path));
      const again = await serialize(
        [...file.entries].map(([name, { dtype, shape }]) => ({
          name,
          dtype,
          shape,
          bytes: async () => (await file.read(name)).bytes,
        })),
        file.metadata,
      );
      assert.ok(Buffer.from(again).equals(original), path);
    }
  });

  test("shards are seen as one file, equal to the single file", { skip: needsShared }, async () => {
    for (const model of ["tiny-gpt2", "tiny-llama"]) {
      const one = await openWeights(await directoryFiles(join(shared, "fixtures/peft", model)));
      const many = await openWeights(await directoryFiles(join(shared, "fixtures/peft", `${model}-sharded`)));
      assert.deepEqual(new Set(one.entries.keys()), new Set(many.entries.keys()));
      for (const name of one.entries.keys()) assert.deepEqual(await many.read(name), await one.read(name));
      await one.close();
      await many.close();
    }
  });
});

describe("element types", () => {
  const f32 = fc.float({ noNaN: true });
  const bytesOf = (values: ArrayBufferView): Uint8Array =>
    new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

  test("floats of every width come back as f32, also from bytes off the grid", () => {
    fc.assert(
      fc.property(fc.array(f32), fc.integer({ min: 0, max: 7 }), (list, skew) => {
        const values = Float32Array.from(list);
        const shape = [list.length];
        const skewed = (bytes: Uint8Array): Uint8Array => {
          const room = new Uint8Array(bytes.length + skew);
          room.set(bytes, skew);
          return room.subarray(skew);
        };
        const read = (dtype: FileDType, stored: ArrayBufferView): Float32Array =>
          decodeF32({ dtype, shape, bytes: skewed(bytesOf(stored)) }, "f", "t");
        assert.deepEqual(read("F32", values), values);
        assert.deepEqual(read("F64", Float64Array.from(list)), values);
        const f16 = Uint16Array.from(list, f32ToF16);
        assert.deepEqual(Uint16Array.from(read("F16", f16), f32ToF16), f16);
        const bf16 = Uint16Array.from(list, f32ToBf16);
        assert.deepEqual(Uint16Array.from(read("BF16", bf16), f32ToBf16), bf16);
      }),
    );
  });

  test("integers and booleans keep their values", () => {
    const cases: [FileDType, ArrayBufferView, number[]][] = [
      ["U8", Uint8Array.of(0, 255), [0, 255]],
      ["I8", Int8Array.of(-128, 127), [-128, 127]],
      ["I16", Int16Array.of(-32768, 32767), [-32768, 32767]],
      ["U16", Uint16Array.of(0, 65535), [0, 65535]],
      ["I32", Int32Array.of(-(2 ** 31), 7), [-(2 ** 31), 7]],
      ["U32", Uint32Array.of(0, 2 ** 32 - 1), [0, 2 ** 32 - 1]],
      ["I64", BigInt64Array.of(-5n, 2n ** 31n - 1n), [-5, 2 ** 31 - 1]],
      ["U64", BigUint64Array.of(2n ** 32n - 1n), [2 ** 32 - 1]],
      ["BOOL", Uint8Array.of(0, 1), [0, 1]],
    ];
    for (const [dtype, stored, expected] of cases) {
      const { values } = decodeTensor({ dtype, shape: [expected.length], bytes: bytesOf(stored) }, "f", "t");
      assert.deepEqual(Array.from(values), expected, dtype);
    }
  });

  test("a value that does not fit is an error that names the tensor, never wrapped", () => {
    const cases: [FileDType, ArrayBufferView][] = [
      ["I64", BigInt64Array.of(2n ** 31n)],
      ["I64", BigInt64Array.of(-(2n ** 31n) - 1n)],
      ["U64", BigUint64Array.of(2n ** 32n)],
      ["BOOL", Uint8Array.of(2)],
      ["F8_E4M3", Uint8Array.of(1)],
    ];
    for (const [dtype, stored] of cases) {
      const data = { dtype, shape: [1], bytes: bytesOf(stored) };
      assert.throws(() => decodeTensor(data, "f", "t"), { name: "FormatError", file: "f", tensor: "t" });
    }
  });

  test("encodeTensor undoes decodeTensor", () => {
    for (const dtype of ["BOOL", "F16", "BF16", "F32", "F64", "I32", "U32"] as const) {
      const bytes = Uint8Array.from({ length: 16 }, (_, i) => (dtype === "BOOL" ? i & 1 : i * 3));
      const shape = [16 / FILE_DTYPE_BYTES[dtype]];
      const decoded = decodeTensor({ dtype, shape, bytes }, "f", "t");
      assert.deepEqual(encodeTensor(decoded.dtype, decoded.values), bytes, dtype);
    }
  });
});

/** A source that fails the test if it is asked for anything outside of the file. */
function guarded(bytes: Uint8Array): Source {
  return {
    name: "mutant",
    size: bytes.length,
    read: async (offset, length) => {
      assert.ok(offset >= 0 && length >= 0 && offset + length <= bytes.length, `read ${offset}+${length}`);
      return bytes.slice(offset, offset + length);
    },
  };
}

/** Opens a file and reads all its tensors; true if it is valid, false on FormatError. Other errors are rethrown. */
async function opens(bytes: Uint8Array): Promise<boolean> {
  try {
    const file = await openSafetensors(guarded(bytes));
    let total = 0;
    for (const [name, { dtype, shape }] of file.entries) {
      const data = await file.read(name);
      assert.equal(data.bytes.length, byteCount(dtype, shape));
      total += data.bytes.length;
    }
    assert.ok(total <= bytes.length);
    return true;
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    assert.equal(error.file, "mutant");
    assert.match(error.message, /^mutant.*: found .+; expected .+/s);
    return false;
  }
}

function withHeader(header: string, data: Uint8Array): Uint8Array {
  const json = Buffer.from(header);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, data]);
}

describe("corrupt safetensors", () => {
  test("a file cut anywhere, changed anywhere, or lengthened is a clear error or still valid", async () => {
    const mutation = fc.oneof(
      fc.record({ kind: fc.constant("cut" as const), at: fc.nat() }),
      fc.record({
        kind: fc.constant("byte" as const),
        at: fc.nat(),
        value: fc.integer({ min: 0, max: 255 }),
      }),
      fc.record({
        kind: fc.constant("insert" as const),
        at: fc.nat(),
        bytes: fc.uint8Array({ maxLength: 9 }),
      }),
      fc.record({ kind: fc.constant("length" as const), value: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }) }),
      fc.record({ kind: fc.constant("length" as const), value: fc.bigInt({ min: 0n, max: 2000n }) }),
    );
    const count = { valid: 0, refused: 0 };
    await fc.assert(
      fc.asyncProperty(
        samples,
        fc.array(mutation, { minLength: 1, maxLength: 3 }),
        async (all, mutations) => {
          let bytes: Uint8Array = await serialize(toWrite(all));
          for (const m of mutations) {
            if (m.kind === "length") {
              const copy = bytes.slice();
              if (copy.length >= 8) new DataView(copy.buffer).setBigUint64(0, m.value, true);
              bytes = copy;
            } else {
              const at = m.at % (bytes.length + 1);
              if (m.kind === "cut") bytes = bytes.slice(0, at);
              if (m.kind === "byte") bytes = bytes.map((b, i) => (i === at ? m.value : b));
              if (m.kind === "insert") bytes = Buffer.concat([bytes.slice(0, at), m.bytes, bytes.slice(at)]);
            }
          }
          count[(await opens(bytes)) ? "valid" : "refused"]++;
        },
      ),
      { numRuns: 1500 },
    );
    assert.ok(count.refused > 500, JSON.stringify(count));
  });

  test("headers with wrong fields are a clear error or still valid", async () => {
    const odd = fc.oneof(
      fc.constantFrom(0, 1, 4, 8, -1, 0.5, 2 ** 31, 2 ** 53, 1e300, null, "F32", "F4", "f32", [], {}, true),
      fc.integer(),
      fc.jsonValue({ maxDepth: 2 }),
    );
    const tensor = fc.record(
      {
        dtype: fc.oneof(fc.constantFrom(...DTYPES), odd),
        shape: fc.oneof(fc.array(fc.oneof(fc.nat(4), odd), { maxLength: 4 }), odd),
        data_offsets: fc.oneof(fc.array(fc.oneof(fc.nat(40), odd), { minLength: 1, maxLength: 3 }), odd),
      },
      { requiredKeys: [] },
    );
    const header = fc.dictionary(fc.oneof(fc.string(), fc.constant("__metadata__")), fc.oneof(tensor, odd), {
      maxKeys: 4,
    });
    await fc.assert(
      fc.asyncProperty(header, fc.uint8Array({ maxLength: 40 }), async (fields, data) => {
        await opens(withHeader(JSON.stringify(fields), data));
      }),
      { numRuns: 1000 },
    );
  });

  const F32 = (shape: string, begin: number, end: number): string =>
    `{"dtype":"F32","shape":${shape},"data_offsets":[${begin},${end}]}`;
  const cases: [string, string, number, RegExp][] = [
    ["an overlap", `{"a":${F32("[2]", 0, 8)},"b":${F32("[2]", 4, 12)}}`, 12, /"b": found an overlap/],
    ["a hole", `{"a":${F32("[1]", 0, 4)},"b":${F32("[1]", 8, 12)}}`, 12, /"b": found a hole of 4 bytes/],
    ["bytes after the end", `{"a":${F32("[1]", 0, 4)}}`, 8, /found 4 bytes after the last tensor/],
    ["offsets beyond the file", `{"a":${F32("[4]", 0, 16)}}`, 8, /"a": found data_offsets \[0,16\].*<= 8/],
    [
      "a size that does not fit",
      `{"a":${F32("[3]", 0, 8)}}`,
      8,
      /"a": found 8 bytes; expected 12 bytes for F32 \[3\]/,
    ],
    [
      "a count that overflows",
      `{"a":${F32("[4503599627370496,4096,0.0]", 0, 0)},"b":${F32("[67108864,67108864,8]", 0, 8)}}`,
      8,
      /"b": found 8 bytes; expected more bytes than a file can have/,
    ],
    [
      "an unknown type",
      `{"a":{"dtype":"F4","shape":[],"data_offsets":[0,4]}}`,
      4,
      /"a": found dtype "F4"; expected one of BOOL/,
    ],
    [
      "one name twice",
      `{"a":${F32("[1]", 0, 4)},"\\u0061":${F32("[1]", 4, 8)}}`,
      8,
      /found the key "a" twice/,
    ],
    [
      "one field twice",
      `{"a":{"dtype":"F32","dtype":"F32","shape":[],"data_offsets":[0,4]}}`,
      4,
      /"dtype" twice/,
    ],
    ["nesting", `{"a":${"[".repeat(100_000)}`, 0, /nested deeper than 3/],
    [
      "metadata that is not text",
      `{"__metadata__":{"format":1}}`,
      0,
      /"__metadata__": found .*expected an object of strings/,
    ],
    ["text that is not JSON", `{"a":`, 0, /expected JSON/],
    ["a list for a header", `[1]`, 0, /found a header that starts with byte 91/],
  ];
  for (const [what, header, size, message] of cases) {
    test(`${what} is named`, async () => {
      const source = guarded(withHeader(header, new Uint8Array(size)));
      await assert.rejects(openSafetensors(source), (error: Error) => {
        assert.ok(error instanceof FormatError);
        assert.match(error.message, message);
        return true;
      });
    });
  }

  test("a header length beyond the file or the format's limit is refused before it is read", async () => {
    for (const length of [100_000_001n, 2n ** 40n, 2n ** 63n, 2n ** 64n - 1n, 0n, 1n]) {
      const bytes = new Uint8Array(100);
      new DataView(bytes.buffer).setBigUint64(0, length, true);
      bytes[8] = 0x7b;
      await assert.rejects(
        openSafetensors(guarded(bytes)),
        /found a header of \d+ bytes; expected a header of 2 to 92 bytes/,
      );
    }
    const huge: Source = {
      name: "huge",
      size: 2 ** 40,
      read: async (_offset, length) => {
        assert.ok(length <= 9, "nothing is read beyond the start");
        return Uint8Array.of(0, 0, 0, 0, 1, 0, 0, 0, 0x7b).slice(0, length);
      },
    };
    await assert.rejects(
      openSafetensors(huge),
      /found a header of 4294967296 bytes; expected a header of 2 to 100000000 bytes/,
    );
  });

  test("a pickle is refused, and the error says how to convert it", async () => {
    for (const start of [
      [0x80, 2, 0x8a],
      [0x50, 0x4b, 3, 4],
    ]) {
      const bytes = Uint8Array.from([...start, ...Array<number>(20).fill(7)]);
      await assert.rejects(openSafetensors(guarded(bytes)), /a Python pickle.*save with safetensors/);
    }
  });

  test("bytes that vanish while the file is read are an error", async () => {
    const bytes = await serialize([{ name: "a", dtype: "F32", shape: [4], bytes: () => new Uint8Array(16) }]);
    let shrunk = false;
    const file = await openSafetensors({
      name: "shrinking",
      size: bytes.length,
      read: async (offset, length) => bytes.slice(offset, shrunk ? offset + length - 1 : offset + length),
    });
    shrunk = true;
    await assert.rejects(file.read("a"), /found 15 bytes.*expected 16 bytes.*cut short/);
    await assert.rejects(file.read("b"), /"b": found no such tensor/);
    await assert.rejects(file.readBytes("a", 8, 9), RangeError);
  });
});

describe("sharded weights", () => {
  const shard = (...names: string[]): Promise<Uint8Array> =>
    serialize(names.map((name) => ({ name, dtype: "F32", shape: [1], bytes: () => new Uint8Array(4) })));
  const index = (map: Record<string, unknown>): string => JSON.stringify({ weight_map: map });
  const INDEX = "model.safetensors.index.json";
  const fails = async (files: Record<string, string | Uint8Array>, message: RegExp): Promise<void> => {
    await assert.rejects(openWeights(memoryFiles(new Map(Object.entries(files)))), (error: Error) => {
      assert.ok(error instanceof FormatError, String(error));
      assert.match(error.message, message);
      return true;
    });
  };

  test("a shard outside of the directory is refused", async () => {
    for (const name of [
      "../x.safetensors",
      "/etc/x.safetensors",
      "a/../../x.safetensors",
      "..\\x.safetensors",
      "C:x.safetensors",
      "x\0.safetensors",
      ".safetensors/..",
      "x.bin",
      3,
    ]) {
      await fails({ [INDEX]: index({ a: name }) }, /"a": found the file .*expected the plain name/);
    }
  });

  test("missing shards, missing and doubled tensors are named", async () => {
    await fails({}, /no weights; expected model\.safetensors/);
    await fails({ "pytorch_model.bin": "x" }, /pytorch_model\.bin, a Python pickle.*save_pretrained/);
    await fails({ [INDEX]: "{}" }, /"weight_map": found nothing/);
    await fails({ [INDEX]: index({ a: "1.safetensors" }) }, /found no file 1\.safetensors/);
    await fails(
      { [INDEX]: index({ a: "1.safetensors", b: "1.safetensors" }), "1.safetensors": await shard("a") },
      /"b": found no such tensor/,
    );
    await fails(
      {
        [INDEX]: index({ a: "1.safetensors", b: "2.safetensors" }),
        "1.safetensors": await shard("a"),
        "2.safetensors": await shard("a", "b"),
      },
      /2\.safetensors: "a": found a tensor that is also in 1\.safetensors/,
    );
    await fails({ [INDEX]: `{"weight_map":{"a":"1.safetensors","a":"1.safetensors"}}` }, /"a" twice/);
  });
});

test("a file on disk is read in pieces", { skip: needsShared }, async () => {
  const path = join(shared, "models/stories260K/model.safetensors");
  const source = await fileSource(path);
  const whole = readFileSync(path);
  assert.equal(source.size, whole.length);
  assert.deepEqual(Buffer.from(await source.read(1000, 5000)), whole.subarray(1000, 6000));
  assert.equal((await source.read(source.size - 3, 10)).length, 3);
  await source.close?.();
});
