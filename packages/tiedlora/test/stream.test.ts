/** Examples that are read while training, and sets that are mixed by weight: which examples come, in which order, from any index on. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import {
  type AsyncBatchSource,
  type Batch,
  type BatchSource,
  DataError,
  type EncodedExample,
  mixedBatches,
  streamBatches,
} from "../src/index.ts";
import { holdOut } from "../src/data/hold-out.ts";

/** A token for each line's number. */
const tokenizer = {
  encode: (text: string) => [7, ...text.split(" ").filter(Boolean).map(Number)],
  eosId: null,
};
const OPTIONS = { batch: 2, maxLength: 32, seed: 5, padId: 0 };

/** A file of `count` examples, and how many of its lines were read. */
function file(
  count: number,
  broken = Infinity,
): { name: string; read: number; pieces: () => AsyncIterable<string> } {
  const made = {
    name: "a.jsonl",
    read: 0,
    async *pieces() {
      for (let i = 1; i <= count; i++) {
        made.read++;
        yield await Promise.resolve(i === broken ? "{\n" : `{"prompt":"1","completion":"${100 + i}"}\n`);
      }
    },
  };
  return made;
}

/** The numbers of the examples in a batch. */
const numbers = ({ batch, length, tokens }: Batch): number[] =>
  Array.from({ length: batch }, (_, row) => tokens[row * length + 2]! - 100);
async function first(source: AsyncBatchSource | BatchSource, count: number, from = 0): Promise<number[][]> {
  const found: number[][] = [];
  for (let i = from; i < from + count; i++) found.push(numbers(await source(i)));
  return found;
}

suite("a file that is read while training", () => {
  test("gives every example once before any comes again, drawn from the buffer in an order of each epoch's own", async () => {
    const { batch } = await streamBatches(file(101), tokenizer, { ...OPTIONS, buffer: 20 });
    const all = await first(batch, 102);
    const [one, two] = [all.slice(0, 51).flat(), all.slice(51).flat()];
    for (const epoch of [one, two]) assert.deepEqual(epoch.toSorted((a, b) => a - b), Array.from({ length: 101 }, (_, i) => i + 1)); // prettier-ignore
    assert.notDeepEqual(one, two);
    assert.notDeepEqual(
      one.slice(0, 32).toSorted((a, b) => a - b),
      one.slice(0, 32).map((_, i) => i + 1),
    ); // from behind the window too
  });

  test("gives the same batches from any index on, so that a run can be resumed", async () => {
    const open = async (): Promise<AsyncBatchSource> =>
      (await streamBatches(file(40), tokenizer, { ...OPTIONS, buffer: 7 })).batch;
    const straight = await first(await open(), 30);
    assert.deepEqual(await first(await open(), 7, 23), straight.slice(23));
    const source = await open();
    await source(12);
    assert.deepEqual(await first(source, 2, 3), straight.slice(3, 5));
  });

  test("reads no further than it needs to", async () => {
    const large = file(100_000);
    const { batch } = await streamBatches(large, tokenizer, { ...OPTIONS, buffer: 50 });
    await batch(0);
    assert.ok(large.read < 300, `${large.read} lines`);
  });

  test("names the line of a fault when it gets there, and refuses a file of which nothing can be learned", async () => {
    const { batch } = await streamBatches(file(200, 150), tokenizer, { ...OPTIONS, buffer: 10 });
    await batch(0);
    await assert.rejects(first(batch, 90), (error) => error instanceof DataError && error.line === 150);
    const nothing = { name: "b.jsonl", pieces: file(0).pieces };
    await assert.rejects(streamBatches(nothing, tokenizer, { ...OPTIONS, buffer: 10 }), {
      message: /no example of which anything/,
    });
  });
});

const set = (from: number, count: number): EncodedExample[] =>
  Array.from({ length: count }, (_, i) => ({
    tokens: Int32Array.from([7, 1, 100 + from + i]),
    spans: [[2, 3]],
    line: i,
    truncated: false,
  }));

suite("sets that are mixed by weight", () => {
  test("come in proportion to their weights, whatever their sizes, and each is used up before it comes again", async () => {
    const source = mixedBatches([{ examples: set(0, 10), weight: 3 }, { examples: set(500, 90), weight: 1 }], OPTIONS); // prettier-ignore
    const all = (await first(source, 2000)).flat();
    assert.equal(all.filter((n) => n < 500).length, 3000);
    const some = (await first(source, 160)).flat();
    const counts = new Map<number, number>();
    for (const n of some.filter((n) => n >= 500)) counts.set(n, (counts.get(n) ?? 0) + 1);
    assert.deepEqual([counts.size, Math.max(...counts.values())], [80, 1]);
    assert.deepEqual(await first(source, 3, 77), (await first(source, 80)).slice(77));
  });

  test("need examples and weights above 0", () => {
    assert.throws(() => mixedBatches([{ examples: [], weight: 1 }], OPTIONS), {
      message: /a set has no examples/,
    });
    assert.throws(() => mixedBatches([{ examples: set(0, 1), weight: 0 }], OPTIONS), { message: /weight 0 0 given; expected a finite number above 0/ }); // prettier-ignore
  });
});

test("examples are held out by share or number, the same for the same seed, and never all of them", () => {
  const all = Array.from({ length: 20 }, (_, i) => i);
  const [kept, held] = holdOut(all, 0.25, 3);
  assert.deepEqual([kept.length, held.length, [...kept, ...held].toSorted((a, b) => a - b)], [15, 5, all]);
  assert.deepEqual(holdOut(all, 5, 3), [kept, held]);
  assert.notDeepEqual(holdOut(all, 5, 4), [kept, held]);
  assert.throws(() => holdOut(all, 20, 3), {
    message: /20 of 20 examples to hold out; expected at least one, and one that is left/,
  });
});
