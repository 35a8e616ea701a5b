/** Decoding bytes to text: which bytes are accepted, where faults are, and that a long line costs no more than short ones. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite, test } from "node:test";
import fc from "fast-check";
import { DataError, loadDataset, readRecords, type TextFile, textOf } from "../src/index.ts";
import { textFile } from "../src/node.ts";

/** A file of the given bytes that is read in pieces of any size. */
const file = (name: string, bytes: Uint8Array, piece = Infinity): TextFile => ({
  name,
  async *pieces() {
    for (let i = 0; i < bytes.length; i += piece) yield await Promise.resolve(bytes.slice(i, i + piece));
  },
});

async function whole(given: TextFile): Promise<string> {
  let text = "";
  for await (const piece of textOf(given)) text += piece;
  return text;
}

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
function utf16(text: string, littleEndian: boolean, mark = true): Uint8Array {
  const units = [...(mark ? [0xfeff] : []), ...Array.from({ length: text.length }, (_, i) => text.charCodeAt(i))]; // prettier-ignore
  const view = new DataView(new ArrayBuffer(2 * units.length));
  units.forEach((unit, i) => view.setUint16(2 * i, unit, littleEndian));
  return new Uint8Array(view.buffer);
}
const ENCODERS = {
  "UTF-8": utf8,
  "UTF-8 with a mark": (text: string) => utf8(`\ufeff${text}`),
  "UTF-16, little-endian": (text: string) => utf16(text, true),
  "UTF-16, big-endian": (text: string) => utf16(text, false),
};

const pieces = fc.integer({ min: 1, max: 7 });
const texts = fc.string({
  unit: fc.constantFrom("a", "\n", "ü", "日", "😀", "\u{10ffff}", "\u0800", "\ud7ff", "\ufffd"),
});

suite("text", () => {
  for (const [name, encode] of Object.entries(ENCODERS)) {
    test(`in ${name} is read as it was written, wherever the pieces are cut`, async () => {
      await fc.assert(
        fc.asyncProperty(texts, pieces, async (text, piece) => {
          assert.equal(await whole(file("a.txt", encode(text), piece)), text);
        }),
        { numRuns: 200 },
      );
    });
  }

  const broken = async (bytes: Uint8Array, piece: number): Promise<DataError> => {
    const error: unknown = await whole(file("a.txt", bytes, piece)).then(
      () => null,
      (cause: unknown) => cause,
    );
    assert.ok(error instanceof DataError, String(error));
    return error;
  };

  test("that is not UTF-8 is refused with its line and the offset of the byte, wherever the pieces are cut", async () => {
    const faults = [[0xe9], [0xc3], [0x80], [0xff], [0xc0, 0xaf], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xe2, 0x82]]; // prettier-ignore
    const after = fc.constantFrom("", "a", "\n", "é");
    await fc.assert(
      fc.asyncProperty(texts, fc.constantFrom(...faults), after, pieces, async (text, fault, end, piece) => {
        const before = utf8(text);
        const error = await broken(Uint8Array.from([...before, ...fault, ...utf8(end)]), piece);
        const byte = `0x${fault[0]!.toString(16).toUpperCase()}`;
        assert.equal(error.line, text.split("\n").length);
        assert.ok(
          error.message.includes(`byte ${byte} at offset ${before.length} is not UTF-8 text`),
          error.message,
        );
        assert.match(error.message, /UTF-16 with a byte-order mark.*iconv/);
      }),
      { numRuns: 400 },
    );
  });

  test("with half a surrogate pair in UTF-16, or half a character at its end, likewise", async () => {
    for (const littleEndian of [true, false]) {
      for (const [text, at] of [
        ["a\n\ud800b", 6],
        ["a\n\udc00", 6],
        ["a\n\ud83d", 6],
      ] as const) {
        for (const piece of [1, 2, 3, 99]) {
          const error = await broken(utf16(text, littleEndian), piece);
          assert.equal(error.line, 2);
          assert.match(error.message, new RegExp(`at offset ${at} is not UTF-16 text`));
        }
      }
      const cut = utf16("ab", littleEndian).subarray(0, 5);
      assert.match((await broken(cut, 2)).message, /line 1: byte 0x\w\w at offset 4 is not UTF-16/);
    }
  });

  test("with a NUL in it is refused: a binary file, or UTF-16 without a mark", async () => {
    const error = await broken(utf8("é\nab\0c"), 2);
    assert.equal(error.line, 2);
    assert.match(error.message, /a NUL byte at offset 5, which no text has.*UTF-16 without/);
    assert.match((await broken(utf16("ab", true, false), 9)).message, /line 1: a NUL byte at offset 1/);
    assert.match((await broken(utf16("a\nb\0", false), 9)).message, /line 2: a NUL byte at offset 8/);
    const text = { name: "a.txt", pieces: async function* () { yield await Promise.resolve("\ufeffx\ny\0"); } }; // prettier-ignore
    await assert.rejects(whole(text), { message: /a\.txt, line 2: a NUL character at offset 4/ });
  });
});

suite("every reader of data", () => {
  const LINES: Readonly<Record<string, string>> = {
    "a.txt": "one\nna*ve\n",
    "a.jsonl": '{"text": "one"}\n{"text": "na*ve"}\n',
    "a.json": '[{"text": "one"},\n{"text": "na*ve"}]',
    "a.csv": 'text\n"na*ve"\n',
    "a.tsv": "text\nna*ve\n",
  };
  const folder = mkdtempSync(join(tmpdir(), "tiedlora-text-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  const tokenizer = { eosId: 2, encode: (text: string) => Array.from(text, (c) => c.codePointAt(0)!) };

  for (const [name, text] of Object.entries(LINES)) {
    test(`${name}: Latin-1 is refused by line and byte; UTF-16 with a mark is read`, async () => {
      const path = join(folder, name);
      writeFileSync(path, Buffer.from(text.replace("*", "ï"), "latin1"));
      const load = async (): Promise<number[][]> => {
        const { examples } = await loadDataset(await textFile(path), tokenizer, { maxLength: 64 });
        return examples.map(({ tokens }) => Array.from(tokens));
      };
      const at = text.indexOf("*");
      await assert.rejects(load(), (error) => {
        assert.ok(error instanceof DataError);
        assert.equal(error.line, 2);
        assert.match(error.message, new RegExp(`line 2: byte 0xEF at offset ${at} is not UTF-8`));
        return true;
      });
      writeFileSync(path, text.replace("*", "ï"));
      const right = await load();
      assert.ok(right.at(-1)!.includes(0xef));
      writeFileSync(path, utf16(text.replace("*", "ï"), false));
      assert.deepEqual(await load(), right);
    });
  }

  test("refuses half a surrogate pair that an escape of JSON writes", async () => {
    const load = (line: string): Promise<unknown> =>
      loadDataset(file("a.jsonl", utf8(line)), tokenizer, { maxLength: 64 });
    await assert.rejects(load('{"text": "a"}\n{"text": "x\\ud83d"}'), {
      name: "DataError",
      message: /line 2: "text" holds \\ud83d alone, half of a surrogate pair/,
    });
    await assert.rejects(load('{"messages": [{"role": "assistant", "content": "\\ude00"}]}'), {
      message: /line 1: messages\[0\] holds \\ude00 alone/,
    });
    await load('{"text": "x\\ud83d\\ude00"}');
  });
});

test("a line of 32 MB costs at most a few times what as many short lines cost", async () => {
  const SIZE = 32 * 2 ** 20;
  const piece = new Uint8Array(2 ** 16).fill(0x61);
  const read = async (ends: boolean): Promise<number> => {
    const one = piece.slice();
    if (ends) for (let i = 63; i < one.length; i += 64) one[i] = 0x0a;
    const given: TextFile = {
      name: "a.txt",
      async *pieces() {
        for (let i = 0; i < SIZE; i += one.length) yield await Promise.resolve(one);
      },
    };
    const start = process.cpuUsage();
    let characters = 0;
    for await (const { fields } of readRecords(given)) characters += (fields["text"] as string).length;
    assert.equal(characters, ends ? (SIZE / 64) * 63 : SIZE);
    return process.cpuUsage(start).user;
  };
  const short = await read(true);
  const long = await read(false);
  // Reading was once quadratic: searching, copying and splitting 512 pieces anew each time took 40 times as long.
  assert.ok(long < 4 * short + 200_000, `${long} µs for one line, ${short} µs for many`);
});
