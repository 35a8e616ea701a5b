/**
 * Batches of a file that is read while training, so that it may be larger than memory: examples pass through a buffer, from which they
 * are drawn at random. Only what is in the buffer is in memory.
 */
import { key, permutation } from "@tiedlora/core";
import { checkWhole } from "@tiedlora/core/arguments";
import {
  type AsyncBatchSource,
  type Batch,
  type BatchOptions,
  groupedBatches,
  packExamples,
  WINDOW,
} from "./batches.ts";
import { type DatasetOptions, encodedExamples, fingerprintOf, type Layout, TEXTS } from "./dataset.ts";
import type { EncodedExample, TextEncoderLike } from "./encode.ts";
import { DataError } from "./errors.ts";
import type { Example } from "./examples.ts";
import { PAIRS } from "./preferences.ts";
import type { TextFile } from "./text.ts";

/** How a file is read while training. */
export interface StreamOptions extends DatasetOptions, BatchOptions {
  /** The number of examples in the buffer from which the next one is drawn. 1: the order of the file. */
  readonly buffer: number;
  /** Whether short examples are joined into sequences of up to `maxLength` tokens. Default: false. */
  readonly pack?: boolean;
  /** What the records are: single texts, or pairs. Default: "texts". */
  readonly kind?: "texts" | "pairs";
}

/** The batches of a file that is read while training. */
export interface StreamedBatches {
  /** The batches, in order; asking for an earlier one, or for a later one than the next, reads the file again up to it. */
  readonly batch: AsyncBatchSource;
  /** The first example as text. */
  readonly sample: Example;
  /** A hash of the first examples, by which a run can tell whether it trains on the same data as before. */
  readonly fingerprint: string;
}

/**
 * Opens a file to train on while it is read, again and again. Reads the first examples at once. The batches are the same for the same
 * seed, wherever a run begins. Throws DataError with the line of a fault, there or when it is reached, or if nothing can be learned.
 */
export function streamBatches(
  file: TextFile,
  tokenizer: TextEncoderLike,
  options: StreamOptions,
): Promise<StreamedBatches> {
  checkWhole("streamBatches: buffer", options.buffer, 1);
  return options.kind === "pairs"
    ? streamBy(PAIRS, file, tokenizer, options)
    : streamBy(TEXTS, file, tokenizer, options);
}

async function streamBy<E extends { readonly line: number }>(
  layout: Layout<E>,
  file: TextFile,
  tokenizer: TextEncoderLike,
  options: StreamOptions,
): Promise<StreamedBatches> {
  const head: EncodedExample[] = [];
  let sample: Example | null = null;
  for await (const { example, encoded } of encodedExamples(layout, file, tokenizer, options)) {
    if (encoded === null) continue;
    sample ??= layout.sample(example);
    if (head.push(encoded) === HEAD) break;
  }
  if (sample === null)
    throw new DataError(file.name, null, "there is no example of which anything can be learned");
  let at = 0;
  let batches = endlessBatches(layout, file, tokenizer, options);
  const batch = async (index: number): Promise<Batch> => {
    if (index < at) [at, batches] = [0, endlessBatches(layout, file, tokenizer, options)];
    for (;;) {
      const { value } = (await batches.next()) as IteratorYieldResult<Batch>;
      if (at++ === index) return value;
    }
  };
  return { batch, sample, fingerprint: `stream-${options.buffer}-${fingerprintOf(head)}` };
}

/** The number of first examples by which a file is recognized. */
const HEAD = 64;

async function* endlessBatches<E extends { readonly line: number }>(
  layout: Layout<E>,
  file: TextFile,
  tokenizer: TextEncoderLike,
  options: StreamOptions,
): AsyncGenerator<Batch, never> {
  const { batch, maxLength, pack = false } = options;
  let rows: EncodedExample[] = [];
  for (let window = 0, epoch = 0; ; epoch++) {
    for await (const example of drawn(layout, file, tokenizer, options, epoch)) {
      rows.push(example);
      if (rows.length < WINDOW * batch) continue;
      yield* groupedBatches(pack ? packExamples(rows, maxLength) : rows, window++, options);
      rows = [];
    }
    // what is left of a file is a window of its own: a small file has all its examples in each epoch
    if (rows.length > 0)
      yield* groupedBatches(pack ? packExamples(rows, maxLength) : rows, window++, options);
    rows = [];
  }
}

/** The examples of a file, drawn from a buffer. */
async function* drawn<E extends { readonly line: number }>(
  layout: Layout<E>,
  file: TextFile,
  tokenizer: TextEncoderLike,
  options: StreamOptions,
  epoch: number,
): AsyncGenerator<EncodedExample> {
  const { buffer, seed } = options;
  const random = key(seed).fold("buffer").fold(epoch);
  const kept: EncodedExample[] = [];
  let order: Uint32Array = new Uint32Array(0);
  let count = 0;
  for await (const { encoded } of encodedExamples(layout, file, tokenizer, options)) {
    if (encoded === null) continue;
    if (kept.length < buffer) {
      kept.push(encoded);
      continue;
    }
    // each place of the buffer is taken from once in every round, in an order of the round's own
    if (count % buffer === 0) order = permutation(random.fold(count / buffer), buffer);
    const place = order[count++ % buffer]!;
    yield kept[place]!;
    kept[place] = encoded;
  }
  for (const i of permutation(random.fold("rest"), kept.length)) yield kept[i]!;
}
