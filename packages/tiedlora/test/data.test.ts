import assert from "node:assert/strict";
import { suite, test } from "node:test";
import fc from "fast-check";
import {
  batchesOf,
  DataError,
  evaluationBatches,
  exampleOrder,
  loadDataset,
  packExamples,
  readRecords,
  stackBatch,
  stepsPerEpoch,
  type TextFile,
} from "../src/index.ts";
import { batchesOfStep, paddedLength } from "../src/data/batches.ts";
import {
  encodeExample,
  type EncodedExample,
  promptTokens,
  type TextEncoderLike,
} from "../src/data/encode.ts";
import type { Message } from "../src/data/messages.ts";

/** A file in memory that is read in pieces of any size. */
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

const fails = async (name: string, text: string, message: RegExp): Promise<void> => {
  for (const piece of [undefined, 1])
    await assert.rejects(records(name, text, piece), (error) => error instanceof DataError && message.test(error.message)); // prettier-ignore
};

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
    await fails("a.csv", 'x,y\n1,a"b\n', /line 2: there is a quote in the middle of a field/);
    await fails("a.csv", 'x,y\n1,"a"b\n', /line 2: found "b" after a closing quote/);
    await fails(
      "a.csv",
      "x,y\n1,2\n3\n",
      /line 3: the row has 1 fields; expected 2, as in the header \(x, y\)/,
    );
    for (const end of ["\n", "\r\n", "\r"])
      await fails(
        "a.csv",
        `x,y${end}"a${end}${end}b","c${end}"${end}1,a"b${end}`,
        /line 6: there is a quote in the middle of a field/,
      );
    await fails("a.csv", "x,x\n1,2\n", /line 1: the header names the column "x" twice/);
    await fails("a.csv", "", /empty/);
    await fails("a.parquet", "x", /this kind of data file is unknown.*\.jsonl/);
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
  await fails("a.jsonl", '{"x":1}\n{"x":\n', /line 2: the line is not JSON/);
  await fails("a.jsonl", "[1]", /line 1: \[1\] is not a JSON object/);
});

test("a JSON list: its objects, and the line of what is not one", async () => {
  assert.deepEqual(await records("a.json", '\ufeff[\n {"x": "[{,"},\n\n {"x":\n  [1, "\\"]"]}\n]', 3), [
    [{ x: "[{," }, 2],
    [{ x: [1, '"]'] }, 4],
  ]);
  assert.deepEqual(await records("a.json", "[]"), []);
  await fails("a.json", '[{"x":1},\n2]', /line 2: item 2 is not an object; expected a list of objects/);
  await fails("a.json", '{"x":1}', /a\.json: the file is not a list; expected.*\.jsonl/);
  await fails("a.json", '{"x":1}\n{"x":2}', /the file is not JSON.*\.jsonl/);
});

/** Tokens are character codes; 1 begins a text and 2 ends it. "ab" is one token, 500. A chat is "u:hi|a:ho|". */
const tokenizer: TextEncoderLike = {
  encode: (text, { specialTokens = true } = {}) => [
    ...(specialTokens ? [1] : []),
    ...text
      .replaceAll("ab", "\u01f4")
      .split("")
      .map((c) => c.charCodeAt(0)),
  ],
  eosId: 2,
  chat: (messages, { addGenerationPrompt = true } = {}) =>
    "\u0001" +
    messages.map(({ role, content }) => `${role[0]}:${content}|`).join("") +
    (addGenerationPrompt ? "a:" : ""),
};

type Template = (
  messages: readonly Message[],
  options?: { readonly addGenerationPrompt?: boolean },
) => string;
const plainTemplate: Template = (messages, options) => tokenizer.chat!(messages, options);

const encode = (prompt: string, completion: string, maxLength = 100) =>
  encodeExample({ prompt, completion, line: 1 }, tokenizer, { maxLength });

suite("an example", () => {
  test("is the prompt, a space, the completion and an end; the loss starts at the completion", () => {
    const encoded = encode("xy", "z");
    assert.deepEqual([...encoded!.tokens], [1, 120, 121, 32, 122, 2]);
    assert.deepEqual(encoded?.spans, [[3, 6]]);
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
    assert.deepEqual(encoded?.spans, [[2, 4]]);
  });

  test("with a separator has it after every prompt, whatever white space there is, and does not learn it", () => {
    const marked = (prompt: string, completion: string, separator: string): string => {
      const { tokens, spans } = encodeExample({ prompt, completion, line: 1 }, tokenizer, { maxLength: 99, separator })!; // prettier-ignore
      const [start, end] = spans[0]!;
      const text = Array.from(tokens.slice(1, -1), (code) => String.fromCharCode(code)).join("");
      assert.deepEqual([spans.length, end], [1, tokens.length]);
      return `${text.slice(0, start - 1)}[${text.slice(start - 1)}]`;
    };
    assert.equal(marked("xy", "z", "->"), "xy->[z]");
    assert.equal(marked("xy ", "z", "->"), "xy ->[z]");
    assert.equal(marked("xy\n", " z", "->"), "xy\n->[ z]");
    assert.equal(marked("xy", "z", "\n"), "xy\n[z]");
    assert.equal(marked("xy ", "z", " "), "xy  [z]");
    assert.equal(marked("xy ", "z", ""), "xy [z]");
    assert.equal(marked("", "z", "->"), "[z]");
  });

  test("is learned from where a model that is given its prompt goes on", () => {
    // As byte-pair encodings do, a space and the word after it are one token.
    const words: TextEncoderLike = {
      eosId: 2,
      encode: (text) => [1, ...(text.match(/ ?[a-z]+|[^]/g) ?? []).map((word) => 3 + Array.from(word).reduce((n, c) => (n * 131 + c.codePointAt(0)!) % 1_000_003, 0))], // prettier-ignore
    };
    const part = fc.string({ unit: fc.constantFrom("a", "b", " ", "\n", ":"), maxLength: 6 });
    fc.assert(
      fc.property(part, part, part, (head, separator, tail) => {
        const [prompt, completion] = [`q${head}`, `r${tail}`];
        const { tokens, spans } = encodeExample({ prompt, completion, line: 1 }, words, { maxLength: 99, separator })!; // prettier-ignore
        const given = promptTokens(words, prompt, separator);
        const start = spans[0]![0];
        const joins = /[a-z]$/.test(prompt + separator); // the answer goes on with the last word: its token is learned
        assert.deepEqual(Array.from(tokens.slice(0, start)), given.slice(0, joins ? -1 : undefined));
      }),
    );
    assert.deepEqual(promptTokens(words, "q", " "), words.encode("q"));
    assert.deepEqual(promptTokens(words, "q", "\n"), words.encode("q\n"));
    assert.deepEqual(promptTokens(words, "q:", "  "), words.encode("q: "));
  });

  test("without a prompt is learned whole, but for the first token", () => {
    assert.deepEqual(encode("", "z")?.spans, [[1, 3]]);
  });

  test("is cut off at the end, and says so", () => {
    const encoded = encode("xy", "zzzz", 6);
    assert.deepEqual([encoded!.tokens.length, encoded?.truncated], [6, true]);
  });

  test("whose prompt fills the sequence is left out", () => {
    assert.equal(encode("xyxyxy", "z", 6), null);
  });
});

suite("a chat", () => {
  const chat = (
    messages: readonly Message[],
    maxLength = 100,
    template: Template = plainTemplate,
  ): string | null => {
    const encoded = encodeExample({ messages, line: 1 }, { ...tokenizer, chat: template }, { maxLength });
    if (encoded === null) return null;
    const learned = new Set(
      encoded.spans.flatMap(([a, b]) => Array.from({ length: b - a }, (_, i) => a + i)),
    );
    return Array.from(encoded.tokens, (t, i) => {
      const c = t === 1 ? "^" : String.fromCharCode(t);
      return learned.has(i) ? c.toUpperCase() : c;
    }).join("");
  };
  const [ask, answer] = [
    { role: "user", content: "hi" },
    { role: "assistant", content: "ho" },
  ] as const;

  test("is what the template writes, once begun; the assistant's turns are learned, with their ends", () => {
    assert.equal(chat([ask, answer]), "^u:hi|a:HO|");
    assert.equal(chat([ask, answer, ask, answer]), "^u:hi|a:HO|u:hi|a:HO|");
    assert.equal(chat([ask, answer, ask]), "^u:hi|a:HO|u:hi|");
  });

  test("is cut off at the end; without a turn to learn it is left out", () => {
    assert.equal(chat([ask, answer, ask, answer], 16), "^u:hi|a:HO|u:hi|"); // ends before the second answer
    assert.equal(chat([ask, answer], 8), null);
    assert.equal(chat([ask]), null);
  });

  test("whose template rewrites earlier turns is learned where it is what the model will see", () => {
    // Like templates that leave out the reasoning before all answers but the last.
    const forgetful: Template = (messages, options) =>
      tokenizer.chat!(
        messages.map((m, i) =>
          m.role === "assistant" && i < messages.length - 1 ? { ...m, content: "." } : m,
        ),
        options,
      );
    assert.equal(chat([ask, answer, ask, answer], 100, forgetful), "^u:hi|a:.|u:hi|a:HO|");
  });

  const load = (line: object, with_: TextEncoderLike = tokenizer, name = "a.jsonl"): Promise<unknown> =>
    loadDataset(file(name, `{"messages": [{"role": "assistant", "content": "x"}]}\n${JSON.stringify(line)}`), with_, { maxLength: 99 }); // prettier-ignore
  const chatOf = (...roles: string[]): object => ({
    messages: roles.map((role) => ({ role, content: `of ${role}` })),
  });

  test("with a role that no template knows is an error with its line and the role that is meant", async () => {
    const of = (role: string, meant: string): Promise<void> =>
      assert.rejects(load(chatOf("user", role)), {
        name: "DataError",
        message: new RegExp(
          `^a\\.jsonl, line 2: .*messages\\[1\\] has the role "${role}".*expected system, .*did you mean "${meant}"`,
        ),
      });
    await of("gpt", "assistant");
    await of("human", "user");
    await of("asistant", "assistant");
    await of("Assistant", "assistant");
    await load(chatOf("system", "user", "tool", "assistant"));
    await load(chatOf("user", "critic", "assistant"), {
      ...tokenizer,
      namesRole: (role) => role === "critic",
    });
  });

  test("of which the template leaves a message out is an error", async () => {
    const deaf: TextEncoderLike["chat"] = (messages, options) =>
      tokenizer.chat!(messages.filter(({ role }) => role !== "system"), options); // prettier-ignore
    await assert.rejects(load(chatOf("system", "assistant"), { ...tokenizer, chat: deaf }), {
      message:
        /line 2: .*the chat template leaves out messages\[0\], of the role "system".*first of the user/,
    });
  });

  test("for a model without a template is an error that says what to do", async () => {
    const { encode, eosId } = { encode: (text: string) => tokenizer.encode(text), eosId: 2 };
    for (const without of [
      { ...tokenizer, hasChatTemplate: false },
      { encode, eosId },
    ]) {
      await assert.rejects(load(chatOf("user", "assistant"), without), {
        message:
          /line 1: .*no chat template.*instruct model.*chat_template\.jinja.*prompt and completion instead of messages/,
      });
    }
  });

  test("without an assistant's turn is counted; a file of such is an error", async () => {
    const text = ["user", "assistant"].map((role) => JSON.stringify(chatOf("user", role))).join("\n");
    const { unanswered, skipped, empty } = await loadDataset(file("a.jsonl", text), tokenizer, {
      maxLength: 99,
    });
    assert.deepEqual([unanswered, skipped, empty], [[1], [], []]);
    await assert.rejects(
      loadDataset(file("a.jsonl", JSON.stringify(chatOf("user"))), tokenizer, { maxLength: 99 }),
      {
        message: /none of 1 chats has a message of the role "assistant"/,
      },
    );
  });

  test("that is none, or that the tokenizer cannot write, is an error with its line", async () => {
    const load = (text: string, with_ = tokenizer): Promise<unknown> =>
      loadDataset(file("a.jsonl", text), with_, { maxLength: 99 });
    await assert.rejects(load('{"messages":[]}'), { message: /line 1: "messages" is not a list/ });
    await assert.rejects(load('{"messages":[{"role":"user"}]}'), {
      message: /line 1: messages\[0\] is \{"role":"user"\}; expected/,
    });
    await assert.rejects(
      load('{"messages":[{"role":"assistant","content":"x"}]}', { ...tokenizer, chat: undefined! }),
      {
        message: /line 1: this chat cannot be written/,
      },
    );
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
      assert.deepEqual(sample, { prompt: "x", completion: "z", line: 1 });
    }
    assert.deepEqual((await load("a.txt", "z\n")).sample, { prompt: "", completion: "z", line: 1 });
  });

  test("takes columns by name, and suggests the nearest", async () => {
    const { sample } = await load("a.csv", "mr,ref\nx,z\n", { prompt: "mr", completion: "ref" });
    assert.deepEqual(sample, { prompt: "x", completion: "z", line: 2 });
    await assert.rejects(load("a.csv", "mr,ref\nx,z\n", { prompt: "mr", completion: "reff" }), {
      message: /there is no column "reff"; there are mr, ref \(did you mean "ref"\?\)/,
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
      message: /all 1 prompts are longer than 16 tokens.*--seq/,
    });
  });

  test("tells examples without a completion from those that are too long", async () => {
    const text = '{"prompt":"x","completion":""}\n{"prompt":"x","completion":"z"}';
    const { examples, skipped, empty } = await load("a.jsonl", text);
    assert.deepEqual([examples.length, skipped, empty], [1, [], [1]]);
    await assert.rejects(load("a.jsonl", text.split("\n")[0]!), {
      message: /the completions of all 1 examples are empty; is this the right column\?/,
    });
  });

  test("with a token that the model's embedding has no row for is an error with its line", async () => {
    const token = (id: number): string => String.fromCharCode(id);
    const of = (vocab: number): Promise<unknown> =>
      loadDataset(file("a.txt", "abc\nxyz"), { ...tokenizer, token }, { maxLength: 16, vocab });
    await of(501);
    await assert.rejects(of(500), {
      name: "DataError",
      message: /^a\.txt, line 1: token 500 \(.*rows for 0 to 499 alone/,
    });
    await assert.rejects(
      loadDataset(file("a.txt", "x\nxyz"), { ...tokenizer, token }, { maxLength: 16, vocab: 121 }),
      {
        message:
          /^a\.txt, line 2: token 121 \("y"\) is in the tokenizer, but the model's embedding has rows for 0 to 120/,
      },
    );
  });

  test("counts what the tokenizer does not know, and what it leaves out", async () => {
    const strict = (unkId: number | null): TextEncoderLike => ({
      eosId: 2,
      unkId,
      encode: (text) =>
        Array.from(text, (c) => (/[a-z ]/.test(c) ? c.charCodeAt(0) : (unkId ?? -1))).filter((id) => id >= 0),
    });
    const of = async (with_: TextEncoderLike): Promise<unknown> =>
      (await loadDataset(file("a.csv", 'text\n"ab\né\nc"\n"d é"\n'), with_, { maxLength: 16 })).unknown;
    assert.deepEqual(await of(strict(0)), { tokens: 4, characters: [["\n", 2], ["é", 2]] }); // prettier-ignore
    // Tokenizers may leave out white space on purpose, but not letters.
    assert.deepEqual(await of(strict(null)), { tokens: 0, characters: [["é", 2]] });
    assert.equal(await of(tokenizer), null);
  });

  test("has a fingerprint that any other token changes", async () => {
    const of = async (text: string): Promise<string> => (await load("a.txt", text)).fingerprint;
    assert.equal(await of("xyz\nx"), await of("xyz\nx"));
    assert.notEqual(await of("xyz\nx"), await of("xyz\ny"));
    assert.notEqual(await of("xyz"), await of("xyz\nx"));
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
    assert.equal(stackBatch(examples, 100, 0, 4).length, 9);
    assert.equal(stackBatch(examples, 100, 0, 1).length, 8);
    assert.deepEqual(Array.from(batch.tokens.slice(0, 6)), [1, 120, 32, 122, 2, 0]);
    assert.deepEqual(Array.from(batch.mask.slice(0, 6)), [0, 0, 1, 1, 1, 0]);
    assert.equal(
      batch.mask.reduce((a, b) => a + b),
      3 + 4,
    );
    assert.equal(batch.tokenCount, 5 + 8);
    assert.equal(stackBatch(examples, 8, 0).length, 8);
  });

  const ofLength = (n: number, line = 1): EncodedExample => ({
    tokens: new Int32Array(n).fill(line),
    spans: [[1, n]],
    line,
    truncated: false,
  });

  test("have at most 8 lengths to the octave", () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 1 << 20 }), (n) => {
        const length = paddedLength(n, Infinity);
        assert.ok(length >= n && (length - 1) % 32 === 0);
        assert.ok(length - n < Math.max(32, n / 8), `${n} -> ${length}`);
      }),
    );
    const lengths = new Set(Array.from({ length: 4096 }, (_, i) => paddedLength(i + 2, Infinity)));
    assert.equal(lengths.size, 8 + 4 * 8);
  });

  test("have lengths by the step that is asked for", () => {
    const examples = Array.from({ length: 30 }, (_, i) => ofLength(2 + ((i * 37) % 199), i));
    for (const lengthStep of [1, 5, 8]) {
      const at = batchesOf(examples, { batch: 3, maxLength: 300, seed: 1, padId: -1, lengthStep });
      for (let i = 0; i < 10; i++) {
        const { length, batch, tokens } = at(i);
        const rows = Array.from({ length: batch }, (_, row) =>
          tokens.subarray(row * length, (row + 1) * length),
        );
        const longest = Math.max(...rows.map((row) => row.filter((token) => token >= 0).length));
        assert.equal((length - 1) % lengthStep, 0);
        assert.ok(length >= longest && length - longest < lengthStep, `${longest} -> ${length}`);
      }
    }
  });

  const lengths = fc.array(fc.integer({ min: 2, max: 300 }), { minLength: 1, maxLength: 60 });

  /** The examples of each step from `start` on, each identified by its tokens. */
  function steps(
    examples: readonly EncodedExample[],
    { batch, accumulate, seed }: { batch: number; accumulate: number; seed: number },
    [start, end]: readonly [number, number],
  ): number[][] {
    const at = batchesOf(examples, { batch, maxLength: 300, seed, padId: -1 });
    return Array.from({ length: end - start }, (_, i) =>
      batchesOfStep(start + i, accumulate, at.perEpoch).flatMap((index) => {
        const { tokens, segments, length, batch: rows } = at(index);
        assert.ok(rows <= batch);
        const first = (i: number): boolean => i % length === 0 || segments[i] !== segments[i - 1];
        return Array.from(tokens).filter((token, i) => token >= 0 && first(i));
      }),
    );
  }

  test("show every example once an epoch, whatever the batch, accumulation, packing, and where a run goes on", () => {
    const choices = fc.record({
      sizes: lengths,
      batch: fc.integer({ min: 1, max: 9 }),
      accumulate: fc.integer({ min: 1, max: 5 }),
      pack: fc.boolean(),
      seed: fc.nat(99),
      cut: fc.nat(200),
    });
    fc.assert(
      fc.property(choices, ({ sizes, pack, cut, ...rest }) => {
        const alone = sizes.map((n, i) => ofLength(n, i));
        const examples = pack ? packExamples(alone, 300) : alone;
        const epoch = stepsPerEpoch(examples.length, rest.batch, rest.accumulate);
        const resumed = cut % (3 * epoch);
        const all = [...steps(examples, rest, [0, resumed]), ...steps(examples, rest, [resumed, 3 * epoch])];
        const every = sizes.map((_, i) => i);
        for (let n = 0; n < 3; n++) {
          const seen = all.slice(n * epoch, (n + 1) * epoch).flat();
          assert.deepEqual(seen.sort((a, b) => a - b), every); // prettier-ignore
        }
        assert.deepEqual(
          all.map((step) => step.length > 0),
          all.map(() => true),
          "no step is empty",
        );
      }),
      { numRuns: 300 },
    );
  });

  test("of few lengths are not the same ones each epoch", () => {
    const examples = Array.from({ length: 24 }, (_, i) => ofLength(2 + i, i)); // all are padded to 33
    const at = batchesOf(examples, { batch: 4, maxLength: 300, seed: 3, padId: -1 });
    const epoch = (n: number): string[] =>
      Array.from({ length: 6 }, (_, i) => {
        const { tokens, length } = at(6 * n + i);
        return [0, 1, 2, 3].map((row) => tokens[row * length]).toSorted((a, b) => a! - b!).join(); // prettier-ignore
      });
    assert.equal(new Set([...epoch(0), ...epoch(1), ...epoch(2)]).size, 18);
  });

  test("that hold what is left over are of the shortest examples: few programs", () => {
    const examples = Array.from({ length: 43 }, (_, i) => ofLength(i < 12 ? 10 : 200 + i, i));
    const at = batchesOf(examples, { batch: 4, maxLength: 300, seed: 0, padId: 0 });
    assert.equal(at.perEpoch, 11);
    const small = Array.from({ length: 55 }, (_, i) => at(i)).filter(({ batch }) => batch < 4);
    assert.deepEqual(
      small.map(({ batch, length }) => [batch, length]),
      Array.from({ length: 5 }, () => [3, 33]),
    );
  });

  test("of nothing, or of no examples each, are refused", () => {
    const options = { batch: 3, maxLength: 300, seed: 5, padId: 0 };
    assert.throws(() => batchesOf([], options), { name: "RangeError", message: /there are no examples/ });
    for (const batch of [0, 1.5, NaN])
      assert.throws(
        () => batchesOf([ofLength(3)], { ...options, batch }),
        /batch: .* was given; need a whole/,
      );
    for (const lengthStep of [0, 1.5, NaN])
      assert.throws(
        () => batchesOf([ofLength(3)], { ...options, lengthStep }),
        /lengthStep: .* was given; need a whole/,
      );
  });

  test("are a function of seed and step alone: a run can go on anywhere", () => {
    const examples = Array.from({ length: 50 }, (_, i) => ofLength(2 + ((i * 37) % 199), i));
    const options = { batch: 3, maxLength: 200, seed: 5, padId: 0 };
    const inOrder = batchesOf(examples, options);
    const all = Array.from({ length: 70 }, (_, step) => inOrder(step));
    for (const step of [69, 3, 40, 16, 15]) assert.deepEqual(batchesOf(examples, options)(step), all[step]);
    assert.notDeepEqual(batchesOf(examples, { ...options, seed: 6 })(0), all[0]);
  });

  test("of examples sorted by length hold less padding", () => {
    const examples = Array.from({ length: 400 }, (_, i) => ofLength(2 + ((i * 7919) % 500), i)); // 50 batches
    const options = { batch: 8, maxLength: 512, seed: 1, padId: 0 };
    const at = batchesOf(examples, options);
    const batches = Array.from({ length: 48 }, (_, step) => at(step));
    const order = exampleOrder(400, 1);
    const unsorted = batches.map((_, step) =>
      stackBatch(
        Array.from({ length: 8 }, (_, i) => examples[order(8 * step + i)]!),
        512,
        0,
      ),
    );
    const padding = (all: typeof batches): number =>
      1 - all.reduce((n, b) => n + b.tokenCount, 0) / all.reduce((n, b) => n + b.tokens.length, 0);
    assert.ok(padding(batches) < 0.15, `${padding(batches)}`);
    assert.ok(padding(unsorted) > 0.35, `${padding(unsorted)}`);
  });

  test("for an evaluation hold every example once", () => {
    fc.assert(
      fc.property(lengths, fc.integer({ min: 1, max: 7 }), (sizes, batch) => {
        const batches = evaluationBatches(
          sizes.map((n) => ofLength(n)),
          { batch, maxLength: 300, padId: 0 },
        );
        const sum = (f: (b: (typeof batches)[number]) => number): number =>
          batches.reduce((n, b) => n + f(b), 0);
        assert.equal(sum((b) => b.tokenCount), sizes.reduce((a, b) => a + b)); // prettier-ignore
        assert.equal(sum((b) => b.predicted), sizes.reduce((a, b) => a + b - 1, 0)); // prettier-ignore
        for (const b of batches) assert.equal(b.predicted, b.mask.reduce((x, y) => x + y)); // prettier-ignore
      }),
    );
  });

  test("are packed: nothing is lost, nothing too long, each example learns what it learned alone", () => {
    fc.assert(
      fc.property(lengths, (sizes) => {
        const packed = packExamples(sizes.map((n, i) => ofLength(n, i)), 300); // prettier-ignore
        assert.ok(packed.every(({ tokens }) => tokens.length <= 300));
        const learned = packed.flatMap(({ tokens, spans }) => spans.map(([a, b]) => [tokens[a], b - a + 1]));
        for (const { spans, starts } of packed) assert.deepEqual(starts, spans.map(([a]) => a - 1)); // prettier-ignore
        assert.deepEqual(
          learned.sort(([a], [b]) => a! - b!),
          sizes.map((n, i) => [i, n]),
        );
        // Packing would have joined two sequences that are at most half full.
        assert.ok(packed.filter(({ tokens }) => tokens.length <= 150).length <= 1);
      }),
    );
  });
});
