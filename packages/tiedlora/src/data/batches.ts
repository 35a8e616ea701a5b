/** Batches: which examples a step sees, and the arrays it sees them as. */
import { key, permutation } from "@tiedlora/core";
import type { EncodedExample } from "./encode.ts";

export interface Batch {
  readonly batch: number;
  readonly length: number;
  /** [batch, length], padded at the end. */
  readonly tokens: Int32Array;
  /** [batch, length]: 1 where a token is to be predicted from those before it. */
  readonly mask: Float32Array;
  /** Tokens that are not padding. */
  readonly tokenCount: number;
}

/** Lengths are one more than a multiple of this: few shapes of programs, round sizes in them (the last token predicts nothing). */
const LENGTH_STEP = 32;

/** Stacks sequences, padded to the longest of them (rounded up, at most `maxLength`). */
export function stackBatch(examples: readonly EncodedExample[], maxLength: number, padId: number): Batch {
  const longest = Math.max(...examples.map(({ tokens }) => tokens.length));
  const length = Math.min(maxLength, Math.ceil((longest - 1) / LENGTH_STEP) * LENGTH_STEP + 1);
  const tokens = new Int32Array(examples.length * length).fill(padId);
  const mask = new Float32Array(examples.length * length);
  examples.forEach((example, row) => {
    tokens.set(example.tokens, row * length);
    mask.fill(1, row * length + example.answerStart, row * length + example.tokens.length);
  });
  const tokenCount = examples.reduce((n, example) => n + example.tokens.length, 0);
  return { batch: examples.length, length, tokens, mask, tokenCount };
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
