/** Batches: which examples a step sees, and the arrays it sees them as. */
import { key, permutation } from "@tiedlora/core";
import type { EncodedExample, Span } from "./encode.ts";

/** Examples of one step, padded to one length. */
export interface Batch {
  readonly batch: number;
  readonly length: number;
  /** [batch, length], padded at the end. */
  readonly tokens: Int32Array;
  /** `[batch, length]`: 1 where a token is to be predicted from those before it. */
  readonly mask: Float32Array;
  /** Tokens that are not padding. */
  readonly tokenCount: number;
  /** Tokens that are to be predicted. */
  readonly predicted: number;
}

/** Lengths are one more than a multiple of this: round sizes in programs (the last token predicts nothing). */
const LENGTH_STEP = 32;
/** From 8 such steps on, lengths are 8 to the octave, so that long sequences need few programs too. */
const STEPS_PER_OCTAVE = 8;

/** The length that a batch whose longest sequence has `longest` tokens is padded to; at most `maxLength`. */
export function paddedLength(longest: number, maxLength: number): number {
  const octave = 2 ** Math.floor(Math.log2(Math.max(longest - 1, 1)));
  const step = Math.max(LENGTH_STEP, octave / STEPS_PER_OCTAVE);
  return Math.min(maxLength, Math.ceil((longest - 1) / step) * step + 1);
}

/** Stacks sequences, padded to the longest of them (rounded up, at most `maxLength`). */
export function stackBatch(examples: readonly EncodedExample[], maxLength: number, padId: number): Batch {
  const length = paddedLength(longestOf(examples), maxLength);
  const tokens = new Int32Array(examples.length * length).fill(padId);
  const mask = new Float32Array(examples.length * length);
  examples.forEach((example, row) => {
    tokens.set(example.tokens, row * length);
    for (const [start, end] of example.spans) mask.fill(1, row * length + start, row * length + end);
  });
  const tokenCount = examples.reduce((n, example) => n + example.tokens.length, 0);
  const predicted = examples.reduce((n, example) => n + predictedTokens(example), 0);
  return { batch: examples.length, length, tokens, mask, tokenCount, predicted };
}

function longestOf(examples: readonly EncodedExample[]): number {
  return examples.reduce((longest, { tokens }) => Math.max(longest, tokens.length), 0);
}

function predictedTokens({ spans }: EncodedExample): number {
  return spans.reduce((n, [start, end]) => n + end - start, 0);
}

/**
 * The order of `count` examples: each epoch a new shuffle, the same for the same seed wherever it runs. The result maps
 * a position (0, 1, ... over all epochs) to an example, so that a run can be continued anywhere.
 */
export function exampleOrder(count: number, seed: number): (position: number) => number {
  let epoch = -1;
  let order: Uint32Array = new Uint32Array(0);
  return (position) => {
    const wanted = Math.floor(position / count);
    if (wanted !== epoch)
      [epoch, order] = [wanted, permutation(key(seed).fold("shuffle").fold(wanted), count)];
    return order[position % count]!;
  };
}

/** How examples are put into batches. */
export interface BatchOptions {
  /** Examples in each. */
  readonly batch: number;
  readonly maxLength: number;
  readonly seed: number;
  readonly padId: number;
}

/** So many batches are made of their examples together: enough for equal lengths, few enough to stay random. */
const WINDOW = 16;

/**
 * The batch of each step, counted from 0: shuffled anew each epoch, the same for the same seed. Examples of similar length
 * come together: the shuffled order is cut into windows of 16 batches, each is sorted by length and cut into batches, and
 * these are shuffled again. So there is little padding, and few shapes to compile.
 */
export function batchesOf(
  examples: readonly EncodedExample[],
  { batch, maxLength, seed, padId }: BatchOptions,
): (step: number) => Batch {
  const order = exampleOrder(examples.length, seed);
  let window = -1;
  let batches: readonly (readonly EncodedExample[])[] = [];
  return (step) => {
    const wanted = Math.floor(step / WINDOW);
    if (wanted !== window) {
      const first = wanted * WINDOW * batch;
      const rows = Array.from({ length: WINDOW * batch }, (_, i) => examples[order(first + i)]!);
      const sorted = chunks(byLength(rows), batch);
      const mixed = permutation(key(seed).fold("batches").fold(wanted), WINDOW);
      [window, batches] = [wanted, Array.from(mixed, (i) => sorted[i]!)];
    }
    return stackBatch(batches[step % WINDOW]!, maxLength, padId);
  };
}

/** All examples once, in batches of similar length: for an evaluation. The last may be smaller. */
export function evaluationBatches(
  examples: readonly EncodedExample[],
  { batch, maxLength, padId }: Omit<BatchOptions, "seed">,
): Batch[] {
  return chunks(byLength(examples), batch).map((rows) => stackBatch(rows, maxLength, padId));
}

function byLength(examples: readonly EncodedExample[]): EncodedExample[] {
  return examples.toSorted((a, b) => a.tokens.length - b.tokens.length);
}

function chunks<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, i) =>
    items.slice(i * size, (i + 1) * size),
  );
}

/**
 * Joins short examples into sequences of up to `maxLength` tokens (best fit, longest first), so that hardly anything is
 * padding. The examples of a sequence see those before them; each still counts in the loss as it did alone.
 */
export function packExamples(examples: readonly EncodedExample[], maxLength: number): EncodedExample[] {
  const open: { room: number; parts: EncodedExample[] }[] = [];
  for (const example of byLength(examples).reverse()) {
    const size = example.tokens.length;
    let best: (typeof open)[number] | null = null;
    for (const sequence of open.slice(-MAX_OPEN)) {
      if (sequence.room >= size && (best === null || sequence.room < best.room)) best = sequence;
    }
    if (best === null) open.push((best = { room: maxLength, parts: [] }));
    best.parts.push(example);
    best.room -= size;
  }
  return open.map(({ parts }) => joinExamples(parts));
}

/** Sequences that are looked at for room: keeps packing linear in the number of examples. */
const MAX_OPEN = 256;

function joinExamples(parts: readonly EncodedExample[]): EncodedExample {
  const tokens = new Int32Array(parts.reduce((n, part) => n + part.tokens.length, 0));
  const spans: Span[] = [];
  let at = 0;
  for (const part of parts) {
    tokens.set(part.tokens, at);
    for (const [start, end] of part.spans) spans.push([at + start, at + end]);
    at += part.tokens.length;
  }
  return { tokens, spans, line: parts[0]!.line, truncated: parts.some((part) => part.truncated) };
}
