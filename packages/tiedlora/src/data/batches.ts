/** Batches: which examples a step trains on, and the arrays that hold them. */
import { key, permutation } from "@tiedlora/core";
import type { EncodedExample, Span } from "./encode.ts";

/** A batch of examples, padded to one length. */
export interface Batch {
  readonly batch: number;
  readonly length: number;
  /** `[batch, length]`: token ids, padded at the end of each row. */
  readonly tokens: Int32Array;
  /** `[batch, length]`: 1 where a token is to be predicted from the tokens before it. */
  readonly mask: Float32Array;
  /** `[batch, length]`: the index, within its row, of the example that a token belongs to, from 0; -1 for padding. */
  readonly segments: Int32Array;
  /** Whether rows hold several examples; see `packExamples`. */
  readonly packed: boolean;
  /** The number of tokens that are not padding. */
  readonly tokenCount: number;
  /** The number of tokens that are to be predicted. */
  readonly predicted: number;
  /** What its rows are; default: "texts". Pairs and labeled answers have two rows each. */
  readonly kind?: "texts" | "pairs" | "labeled";
  /** For labeled answers: whether each is a desirable one. */
  readonly labels?: readonly boolean[];
}

/** The number of examples in a batch. */
export function examplesIn({ batch, kind = "texts" }: Batch): number {
  return kind === "texts" ? batch : batch / 2;
}

/** Lengths are one more than a multiple of this, so that programs have round sizes: the last token predicts nothing. */
const LENGTH_STEP = 32;
/** The number of lengths between successive powers of two, from 8 steps on, so that long sequences need few programs too. */
const STEPS_PER_OCTAVE = 8;

/** The padded length of a batch whose longest sequence has `longest` tokens; at most `maxLength`. See {@link BatchOptions}. */
export function paddedLength(longest: number, maxLength: number, lengthStep?: number): number {
  const octave = 2 ** Math.floor(Math.log2(Math.max(longest - 1, 1)));
  const step = lengthStep ?? Math.max(LENGTH_STEP, octave / STEPS_PER_OCTAVE);
  return Math.min(maxLength, Math.ceil((longest - 1) / step) * step + 1);
}

/** Stacks sequences into a batch, padded to the length of the longest; for `lengthStep`, see {@link BatchOptions}. */
export function stackBatch(
  given: readonly EncodedExample[],
  maxLength: number,
  padId: number,
  lengthStep?: number,
): Batch {
  const examples = given.flatMap((example) => (example.beside ? [example, example.beside] : [example]));
  const length = paddedLength(longestOf(examples), maxLength, lengthStep);
  const tokens = new Int32Array(examples.length * length).fill(padId);
  const mask = new Float32Array(examples.length * length);
  examples.forEach((example, row) => {
    tokens.set(example.tokens, row * length);
    for (const [start, end] of example.spans) mask.fill(1, row * length + start, row * length + end);
  });
  const tokenCount = examples.reduce((n, example) => n + example.tokens.length, 0);
  const predicted = examples.reduce((n, example) => n + predictedTokens(example), 0);
  const packed = examples.some(({ starts }) => starts !== undefined);
  const segments = segmentsOf(examples, length);
  return {
    batch: examples.length,
    length,
    tokens,
    mask,
    segments,
    packed,
    tokenCount,
    predicted,
    ...kindOf(given),
  };
}

function kindOf(examples: readonly EncodedExample[]): Pick<Batch, "kind" | "labels"> {
  if (examples.every(({ beside }) => beside === undefined)) return {};
  const labels = examples.map(({ label }) => label);
  if (labels.every((label) => label === undefined)) return { kind: "pairs" };
  return { kind: "labeled", labels: labels.map((label) => label === true) };
}

function segmentsOf(examples: readonly EncodedExample[], length: number): Int32Array {
  const segments = new Int32Array(examples.length * length).fill(-1);
  examples.forEach(({ tokens, starts = [0] }, row) => {
    const end = row * length + tokens.length;
    for (const [i, start] of starts.entries()) segments.fill(i, row * length + start, end);
  });
  return segments;
}

function longestOf(examples: readonly EncodedExample[]): number {
  return examples.reduce((longest, example) => Math.max(longest, longestIn(example)), 0);
}

/** The number of tokens of an example; of the longer of its rows, if it has two. */
function longestIn({ tokens, beside }: EncodedExample): number {
  return Math.max(tokens.length, beside?.tokens.length ?? 0);
}

function predictedTokens({ spans }: EncodedExample): number {
  return spans.reduce((n, [start, end]) => n + end - start, 0);
}

/**
 * The order of `count` examples: a new shuffle in each epoch, the same for the same seed on every machine. The result maps a
 * position (0, 1, ... over all epochs) to the index of an example, so that a run can continue from any position.
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

/** How examples are divided into batches. */
export interface BatchOptions {
  /** The number of examples in a batch. */
  readonly batch: number;
  readonly maxLength: number;
  readonly seed: number;
  readonly padId: number;
  /**
   * Batches are padded to lengths that are one more than a multiple of this, a whole number from 1 on. A small step means less padding, and more
   * lengths, each of whose first steps costs more than its later ones. Default: 32, and for more than 256 tokens an eighth of the power of two below.
   */
  readonly lengthStep?: number;
}

/** Batches that are read while they are needed, by index from 0; otherwise as a {@link BatchSource}. */
export interface AsyncBatchSource {
  (index: number): Promise<Batch>;
  readonly perEpoch?: number;
}

/** The batches of a run, by index from 0. The same index always gives the same batch, wherever a run begins. */
export interface BatchSource {
  (index: number): Batch;
  /** The number of batches in an epoch, which contains every example once. Undefined: there are no epochs. */
  readonly perEpoch?: number;
}

/** The number of batches whose examples are sorted together: enough for similar lengths, few enough to stay random. */
export const WINDOW = 16;

/**
 * The batches of all epochs, shuffled anew in each epoch, the same for the same seed. An epoch contains every example once; if
 * `batch` does not divide their number, one of its batches is smaller. Examples of similar length are batched together: the
 * shuffled order of an epoch is cut into windows of 16 batches, each window is sorted by padded length and cut into batches, and
 * its batches are shuffled again. So there is little padding, and there are few shapes to compile. Throws RangeError if there are
 * no examples, or if `batch` is not a whole number of at least 1.
 */
export function batchesOf(examples: readonly EncodedExample[], options: BatchOptions): BatchSource {
  const { batch, maxLength, seed, padId, lengthStep } = options;
  if (examples.length === 0) throw new RangeError("batches: there are no examples; give at least one");
  if (!Number.isInteger(batch) || batch < 1)
    throw new RangeError(`batch: ${batch} was given; need a whole number of examples from 1 on`);
  if (lengthStep !== undefined && (!Number.isInteger(lengthStep) || lengthStep < 1))
    throw new RangeError(`lengthStep: ${lengthStep} was given; need a whole number of tokens from 1 on`);
  const perEpoch = Math.ceil(examples.length / batch);
  const windows = Math.ceil(perEpoch / WINDOW);
  const order = exampleOrder(examples.length, seed);
  let known = -1;
  let batches: readonly (readonly EncodedExample[])[] = [];
  const source = (index: number): Batch => {
    const [epoch, place] = [Math.floor(index / perEpoch), index % perEpoch];
    const window = epoch * windows + Math.floor(place / WINDOW);
    if (window !== known) {
      const first = Math.floor(place / WINDOW) * WINDOW * batch;
      const count = Math.min(WINDOW * batch, examples.length - first);
      const rows = Array.from(
        { length: count },
        (_, i) => examples[order(epoch * examples.length + first + i)]!,
      );
      [known, batches] = [window, grouped(rows, window, options)];
    }
    return stackBatch(batches[place % WINDOW]!, maxLength, padId, lengthStep);
  };
  return Object.assign(source, { perEpoch });
}

/** The rows of a window as batches of similar length, in an order of the window's own. */
function grouped(
  rows: readonly EncodedExample[],
  window: number,
  options: Omit<BatchOptions, "padId">,
): (readonly EncodedExample[])[] {
  const sorted = similar(rows, options);
  const mixed = permutation(key(options.seed).fold("batches").fold(window), sorted.length);
  return Array.from(mixed, (i) => sorted[i]!);
}

/** The batches of the rows of a window, in an order of the window's own. */
export function groupedBatches(
  rows: readonly EncodedExample[],
  window: number,
  options: BatchOptions,
): Batch[] {
  const { maxLength, padId, lengthStep } = options;
  return grouped(rows, window, options).map((some) => stackBatch(some, maxLength, padId, lengthStep));
}

/** Batches without epochs, of the examples at positions 0, 1, ...; examples of similar length within a window come together. */
export function windowedBatches(
  at: (position: number) => EncodedExample,
  options: BatchOptions,
): BatchSource {
  let known = -1;
  let batches: readonly Batch[] = [];
  return (index) => {
    const window = Math.floor(index / WINDOW);
    if (window !== known) {
      const size = WINDOW * options.batch;
      const rows = Array.from({ length: size }, (_, i) => at(window * size + i));
      [known, batches] = [window, groupedBatches(rows, window, options)];
    }
    return batches[index % WINDOW]!;
  };
}

/**
 * Cuts examples into batches by padded length; examples of the same padded length keep their shuffled order. If there is a smaller
 * batch, it has the shortest examples, which have few different lengths and so need few programs.
 */
function similar(
  rows: readonly EncodedExample[],
  { batch, maxLength, lengthStep }: Pick<BatchOptions, "batch" | "maxLength" | "lengthStep">,
): (readonly EncodedExample[])[] {
  const padded = (example: EncodedExample): number => paddedLength(longestIn(example), maxLength, lengthStep);
  const sorted = rows.toSorted((a, b) => padded(a) - padded(b));
  const rest = rows.length % batch;
  return [...(rest > 0 ? [sorted.slice(0, rest)] : []), ...chunks(sorted.slice(rest), batch)];
}

/** The number of steps of `accumulate` batches in an epoch of `examples` examples; the last step may have fewer batches. */
export function stepsPerEpoch(examples: number, batch: number, accumulate = 1): number {
  return Math.ceil(Math.ceil(examples / batch) / accumulate);
}

/** The indices of the batches of a step; both are counted from 0. No step extends into the next epoch. */
export function batchesOfStep(step: number, accumulate: number, perEpoch: number = Infinity): number[] {
  const steps = Math.ceil(perEpoch / accumulate);
  const [epoch, place] = perEpoch === Infinity ? [0, step] : [Math.floor(step / steps), step % steps];
  const first = place * accumulate;
  const before = epoch === 0 ? 0 : epoch * perEpoch;
  return Array.from({ length: Math.min(accumulate, perEpoch - first) }, (_, i) => before + first + i);
}

/** The batches of an evaluation: all examples once, examples of similar length together. The last batch may be smaller. */
export function evaluationBatches(
  examples: readonly EncodedExample[],
  { batch, maxLength, padId, lengthStep }: Omit<BatchOptions, "seed">,
): Batch[] {
  return chunks(byLength(examples), batch).map((rows) => stackBatch(rows, maxLength, padId, lengthStep));
}

function byLength(examples: readonly EncodedExample[]): EncodedExample[] {
  return examples.toSorted((a, b) => longestIn(a) - longestIn(b));
}

function chunks<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, i) =>
    items.slice(i * size, (i + 1) * size),
  );
}

/**
 * Joins short examples into sequences of up to `maxLength` tokens (best fit, longest first), so that there is hardly any padding.
 * Each example attends only to itself, at positions from 0, and counts in the loss as it would unpacked.
 */
export function packExamples(examples: readonly EncodedExample[], maxLength: number): EncodedExample[] {
  if (examples.some(({ beside }) => beside !== undefined))
    throw new Error("pack: pairs and labeled answers cannot be packed, since each has rows of its own");
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

/** The number of latest sequences that are searched for room, so that packing takes time linear in the number of examples. */
const MAX_OPEN = 256;

function joinExamples(parts: readonly EncodedExample[]): EncodedExample {
  const tokens = new Int32Array(parts.reduce((n, part) => n + part.tokens.length, 0));
  const spans: Span[] = [];
  const starts: number[] = [];
  let at = 0;
  for (const part of parts) {
    tokens.set(part.tokens, at);
    starts.push(at);
    for (const [start, end] of part.spans) spans.push([at + start, at + end]);
    at += part.tokens.length;
  }
  const truncated = parts.some((part) => part.truncated);
  return { tokens, spans, starts, line: parts[0]!.line, truncated };
}
