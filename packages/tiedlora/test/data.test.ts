import assert from "node:assert/strict";
import { suite, test } from "node:test";
import fc from "fast-check";
import {
  DataError,
  exampleOrder,
  loadDataset,
  readRecords,
  stackBatch,
  type TextFile,
} from "../src/index.ts";
import { encodeExample, type TextEncoderLike } from "../src/data/encode.ts";

/** A file in memory, handed over in pieces of any size. */
function file(name: string, text: string, piece = Infinity): TextFile {
  return {
    name,
    async *pieces() {
      for (let i = 0; i < text.length; i += piece) yield await Promise.resolve(text.slice(i, i + piece));
    },
  };
}

async function records(
  name: string,
  text: string,
  piece?: number,
): Promise<[Record<string, unknown>, number][]> {
  const all: [Record<string, unknown>, number][] = [];
  for await (const { fields, line } of readRecords(file(name, text, piece))) all.push([fields, line]);
  return all;
}

const fails = (name: string, text: string, message: RegExp): Promise<void> =>
  assert.rejects(records(name, text), (error) => error instanceof DataError && message.test(error.message));

suite("CSV", () => {
  test("fields may hold the delimiter, quotes and line breaks", async () => {
    const text = 'mr,ref\r\n"name[A], area[b]","he said ""hi"""\r\n\r\n"two\nlines",x\r\n';
    assert.deepEqual(await records("a.csv", text), [
      [{ mr: "name[A], area[b]", ref: 'he said "hi"' }, 2],
      [{ mr: "two\nlines", ref: "x" }, 4],
    ]);
  });

  test("what is written by the rules is read back, wherever the pieces are cut", async () => {
    const field = fc.string({ unit: fc.constantFrom("a", "ü", '"', ",", "\n", "\r", " ", "😀") });
    const rows = fc.array(fc.tuple(field, field), { minLength: 1, maxLength: 6 });
    await fc.assert(
      fc.asyncProperty(
        rows,
        fc.integer({ min: 1, max: 9 }),
        fc.constantFrom("\n", "\r\n"),
        async (rows, piece, end) => {
          const quote = (text: string): string => `"${text.replaceAll('"', '""')}"`;
          const text = ["x,y", ...rows.map((row) => row.map(quote).join(","))].join(end);
          const got = await records("a.csv", text, piece);
          assert.deepEqual(
            got.map(([{ x, y }]) => [x, y]),
            rows,
          );
        },
      ),
      { numRuns: 300 },
    );
  });

  test("a byte order mark and a missing last line end are nothing special", async () => {
    assert.deepEqual(await records("a.csv", "\ufeffx\n1"), [[{ x: "1" }, 2]]);
  });

  test("what breaks the rules is an error with its line", async () => {
    await fails("a.csv", 'x,y\n1,"open\n2,3\n', /a\.csv, line 2: a quoted field is never closed/);
    await fails("a.csv", 'x,y\n1,a"b\n', /line 2: a quote in the middle of a field/);
    await fails("a.csv", 'x,y\n1,"a"b\n', /line 2: "b" after a closing quote/);
    await fails("a.csv", "x,y\n1,2\n3\n", /line 3: 1 fields; expected 2, as in the header \(x, y\)/);
    await fails("a.csv", "x,x\n1,2\n", /line 1: the header names the column "x" twice/);
    await fails("a.csv", "", /empty/);
    await fails("a.parquet", "x", /unknown kind of data file.*\.jsonl/);
  });
});

test("in TSV a quote is an ordinary character", async () => {
  assert.deepEqual(await records("a.tsv", 'x\ty\n"a\tb "c" d\n'), [[{ x: '"a', y: 'b "c" d' }, 2]]);
});

test("JSON lines: one object a line, and the line of what is not", async () => {
  assert.deepEqual(await records("a.jsonl", '{"x":1}\r\n\n{"x":"é"}', 1), [
    [{ x: 1 }, 1],
    [{ x: "é" }, 3],
  ]);
  await fails("a.jsonl", '{"x":1}\n{"x":\n', /line 2: not JSON/);
  await fails("a.jsonl", "[1]", /line 1: \[1\] is not a JSON object/);
});

/** Tokens are character codes; 1 begins a text and 2 ends it. "ab" is one token, 500. */
const tokenizer: TextEncoderLike = {
  encode: (text) => [
    1,
    ...text
      .replaceAll("ab", "\u01f4")
      .split("")
      .map((c) => c.charCodeAt(0)),
  ],
  eosId: 2,
};

const encode = (prompt: string, completion: string, maxLength = 100) =>
  encodeExample({ prompt, completion, line: 1 }, tokenizer, { maxLength });

suite("an example", () => {
  test("is the prompt, a space, the completion and an end; the loss starts at the completion", () => {
    const encoded = encode("xy", "z");
    assert.deepEqual([...encoded!.tokens], [1, 120, 121, 32, 122, 2]);
    assert.equal(encoded?.answerStart, 3);
  });

  test("has no space put in where there is white space", () => {
    assert.deepEqual([...encode("x\n", "z")!.tokens], [1, 120, 10, 122, 2]);
    assert.deepEqual([...encode("x", " z")!.tokens], [1, 120, 32, 122, 2]);
  });

  test("counts a token that spans the joint as completion", () => {
    const encoded = encodeExample({ prompt: "xa", completion: "b", line: 1 }, tokenizer, {
      maxLength: 9,
      separator: "",
    });
    assert.deepEqual([...encoded!.tokens], [1, 120, 500, 2]);
    assert.equal(encoded?.answerStart, 2);
  });

  test("without a prompt is learned whole, but for the first token", () => {
    assert.equal(encode("", "z")?.answerStart, 1);
  });

  test("is cut off at the end, and says so", () => {
    const encoded = encode("xy", "zzzz", 6);
    assert.deepEqual([encoded!.tokens.length, encoded?.truncated], [6, true]);
  });

  test("whose prompt fills the sequence is left out", () => {
    assert.equal(encode("xyxyxy", "z", 6), null);
  });
});

suite("a data set", () => {
  const load = (name: string, text: string, options: object = {}) =>
    loadDataset(file(name, text), tokenizer, { maxLength: 16, ...options });

  test("finds the names people use by itself", async () => {
    for (const text of [
      '{"prompt":"x","completion":"z"}',
      '{"instruction":"x","output":"z"}',
      '{"instruction":"x","input":"","output":"z"}',
    ]) {
      const { sample } = await load("a.jsonl", text);
      assert.deepEqual([sample.prompt, sample.completion], ["x", "z"]);
    }
    assert.deepEqual((await load("a.txt", "z\n")).sample, { prompt: "", completion: "z", line: 1 });
  });

  test("takes columns by name, and suggests the nearest", async () => {
    const { sample } = await load("a.csv", "mr,ref\nx,z\n", { prompt: "mr", completion: "ref" });
    assert.deepEqual([sample.prompt, sample.completion], ["x", "z"]);
    await assert.rejects(load("a.csv", "mr,ref\nx,z\n", { prompt: "mr", completion: "reff" }), {
      message: /no column "reff"; there are mr, ref \(did you mean "ref"\?\)/,
    });
    await assert.rejects(load("a.csv", "mr,ref\nx,z\n"), {
      message: /cannot tell prompt and completion apart.*--prompt-column/,
    });
    await assert.rejects(load("a.csv", "mr,ref\nx,z\n", { prompt: "mr" }), {
      message: /no completion column/,
    });
  });

  test("says which line holds something that is not text", async () => {
    await assert.rejects(load("a.jsonl", '{"text":"a"}\n{"text":["b"]}'), {
      message: /a\.jsonl, line 2: "text" is \["b"\]; expected text/,
    });
  });

  test("reports what it cut and left out, and fails if nothing is left", async () => {
    const text = `{"prompt":"${"p".repeat(20)}","completion":"z"}\n{"prompt":"x","completion":"${"z".repeat(20)}"}`;
    const dataset = await load("a.jsonl", text);
    assert.deepEqual([dataset.truncated, dataset.skipped], [1, [1]]);
    await assert.rejects(load("a.jsonl", text.split("\n")[0]!), {
      message: /all 1 prompts are longer than 16 tokens/,
    });
  });
});

suite("batches", () => {
  test("each epoch shows every example once, in an order of its own that the seed decides", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 50 }), fc.nat(1000), (count, seed) => {
        const order = exampleOrder(count, seed);
        const epoch = (n: number): number[] => Array.from({ length: count }, (_, i) => order(n * count + i));
        const [first, second] = [epoch(0), epoch(1)];
        assert.deepEqual(
          [...first].sort((a, b) => a - b),
          Array.from({ length: count }, (_, i) => i),
        );
        assert.deepEqual(epoch(0), first);
        if (count > 20) assert.notDeepEqual(first, second);
      }),
    );
  });

  test("are padded to few lengths, and padding never counts", () => {
    const examples = [encode("x", "z")!, encode("xxx", "zz")!];
    const batch = stackBatch(examples, 100, 0);
    assert.equal(batch.length, 33);
    assert.deepEqual([...batch.tokens.slice(0, 6)], [1, 120, 32, 122, 2, 0]);
    assert.deepEqual([...batch.mask.slice(0, 6)], [0, 0, 1, 1, 1, 0]);
    assert.equal(
      batch.mask.reduce((a, b) => a + b),
      3 + 4,
    );
    assert.equal(batch.tokenCount, 5 + 8);
    assert.equal(stackBatch(examples, 8, 0).length, 8);
  });
});
