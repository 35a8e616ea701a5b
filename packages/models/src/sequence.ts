/** The positions of a batch, and which tokens see which other tokens: computed once for all layers. */
import { type Device, iota, type Tensor, where } from "@tiedlora/core";
import type { KvCache } from "./cache.ts";
import type { DecoderConfig } from "./config.ts";
import { checkRows, type IdsShape, runs } from "./inputs.ts";
import { frequenciesDiffer, type RopeConfig, type RopeTables, ropeTables } from "./rope.ts";

export interface SequenceOptions {
  /** [batch, length] of 1 (a token) and 0 (padding, which is masked). Default: all 1. */
  readonly attentionMask?: readonly ArrayLike<number>[];
  /** [batch, length]. Default: 0, 1, 2, … over the tokens that are not padding, from 0 again in each segment. */
  readonly positions?: readonly ArrayLike<number>[];
  /**
   * [batch, length], for rows that hold several sequences one after another: a number for each token, which changes where
   * the next sequence begins. A token sees only tokens of its own sequence. Default: each row is one sequence.
   */
  readonly segments?: readonly ArrayLike<number>[];
}

/** What comes before the tokens of every sequence. */
interface Front {
  /** The number of keys in front of the sequence, which take the first positions. Default: 0. */
  readonly offset?: number;
  /** The number of vectors that a new sequence begins with, in front of its tokens. Default: 0. */
  readonly prompt?: number;
}

interface Visibility {
  readonly causal: boolean;
  /** Added to the scores; broadcasts to [batch, heads, queries, keys]. */
  readonly bias: Tensor | null;
}

/** Rotary tables [length, dim/2], or [batch, 1, length, dim/2] where rows differ. */
interface Rotation {
  readonly cos: Tensor;
  readonly sin: Tensor;
}

export interface Sequence {
  /** The number of vectors in front of each row's tokens: the sequence is longer by it than the given ids. */
  readonly prompt: number;
  /** Per row, how many tokens, all of them padding, come before these vectors; empty if none do. */
  readonly promptAt: readonly number[];
  /** i32 [length], or [batch, length] where rows differ. */
  readonly positions: Tensor;
  /** The rotary tables of the given tokens in a layer with or without a window; null if positions are learned. */
  rotation(window: number | null): Rotation | null;
  /** The visibility in layers whose queries see `window` positions, up to and including their own; null: all positions. */
  visibility(window: number | null): Visibility;
}

/** The bias that hides a key: its exponential is 0, and sums of several are still finite. */
const HIDDEN = -1e30;

export function prepare(
  config: DecoderConfig,
  device: Device,
  [batch, length]: IdsShape,
  options: SequenceOptions & Front,
  cache?: KvCache,
): Sequence {
  if (cache && (options.attentionMask || options.positions || options.segments)) {
    throw new TypeError(
      "forward: a cache keeps its own positions and padding; give no attentionMask, positions or segments with it",
    );
  }
  if (cache?.stale) {
    throw new RangeError(
      `forward: with ${cache.length + 1} tokens this model's rotary frequencies change, also for those in the cache; ` +
        "give the whole sequence, with a new cache",
    );
  }
  checkRows(options.attentionMask, "attentionMask", batch, length);
  checkRows(options.positions, "positions", batch, length);
  checkRows(options.segments, "segments", batch, length);
  const { offset = 0, prompt = 0 } = options;
  if (cache?.begun) return continuation(config, device, cache, length, offset);
  const segments = options.segments?.map((row) => runs(row));
  const mask = options.attentionMask ?? (cache && paddingMask(cache.pads, length));
  const given = options.positions ?? positionRows(length, { mask, segments });
  const promptAt = prompt > 0 && mask && !segments ? mask.map(leadingZeros) : [];
  const known = withPrompt({ mask, segments, prompt }, promptAt);
  const rows = given.map((row, i) => {
    const own = Array.from(row, (position) => position + offset + prompt);
    return inserted(own, promptAt[i] ?? 0, prompt, (t) => offset + t);
  });
  checkPositions(config, rows, offset + prompt);
  const rotation = config.rope && rotationOf(config.rope, device, rows, known.segments);
  const local = config.localRope && rotationOf(config.localRope, device, rows, known.segments);
  const positions = positionTensor(device, rows);
  return {
    prompt,
    promptAt,
    positions,
    rotation: (window) => (window === null ? rotation : (local ?? rotation)),
    visibility: memoize((window) => visibleTokens(device, known, positions, window)),
  };
}

/** The next tokens of each row of a cache; vectors in front of a sequence are in its cache already. All numbers are among the cache's `numbers`. */
function continuation(
  config: DecoderConfig,
  device: Device,
  cache: KvCache,
  length: number,
  offset: number,
): Sequence {
  const rows = (): number[][] =>
    cache.lengths.map((before) => Array.from({ length }, (_, t) => before + offset + t));
  const rotation = (rope: RopeConfig | null): Rotation | null => {
    if (rope === null) return null;
    const shape = rotationShape(cache.lengths.length, length, rope);
    const [cos, sin] = cache.numbers(device, shape, "f32", () => rotationNumbers(rope, rows(), undefined));
    return { cos: cos!, sin: sin! };
  };
  const [global, local] = [rotation(config.rope), rotation(config.localRope)];
  const shape = cache.lengths.length === 1 ? [length] : [cache.lengths.length, length];
  const [positions] = cache.numbers(device, shape, "i32", () => {
    const own = rows();
    checkPositions(config, own, offset);
    return [Int32Array.from(own.flat())];
  });
  return {
    prompt: 0,
    promptAt: [],
    positions: positions!,
    rotation: (window) => (window === null ? global : (local ?? global)),
    visibility: memoize((window) => visibleSlots(device, cache, window)),
  };
}

/** The number of padding tokens that a row of an attention mask begins with. */
function leadingZeros(row: ArrayLike<number>): number {
  const first = Array.from(row).findIndex((token) => token !== 0);
  return first < 0 ? row.length : first;
}

/** A row with `count` more entries at a place. */
function inserted(
  row: ArrayLike<number>,
  place: number,
  count: number,
  value: (t: number) => number,
): number[] {
  const own = Array.from(row);
  return [...own.slice(0, place), ...Array.from({ length: count }, (_, t) => value(t)), ...own.slice(place)];
}

/** The rows with what is known about the vectors in front of their tokens: they are shown, and are segment 0 of packed rows. */
function withPrompt({ mask, segments, prompt }: Rows, places: readonly number[]): Rows {
  if (prompt === 0) return { mask, segments, prompt };
  return {
    mask: mask?.map((row, i) => inserted(row, places[i] ?? 0, prompt, () => 1)),
    segments: segments?.map((row) => inserted(row.map((run) => run + 1), 0, prompt, () => 0)), // prettier-ignore
    prompt,
  };
}

/** The attention mask of rows that begin with `pads` padding tokens; undefined if no row is padded. */
function paddingMask(pads: readonly number[], length: number): number[][] | undefined {
  if (pads.every((pad) => pad === 0)) return undefined;
  return pads.map((pad) => Array.from({ length }, (_, slot) => (slot < pad ? 0 : 1)));
}

/** What is known about the rows of a batch. */
interface Rows {
  readonly mask: readonly ArrayLike<number>[] | undefined;
  /** Numbered from 0 in each row; see `runs`. */
  readonly segments: readonly (readonly number[])[] | undefined;
  /** The number of vectors in front of the tokens, which all segments see: in packed rows, they are segment 0. */
  readonly prompt: number;
}

/**
 * The default positions, when no cache is continued: one row if all rows are alike. Padding on the left gets
 * position 0, as in transformers' generate, and padding after tokens repeats the last position; padding is masked.
 */
function positionRows(length: number, { mask, segments }: Omit<Rows, "prompt">): number[][] {
  const rows = mask ?? segments;
  if (rows) {
    return rows.map((_, row) => {
      const segment = segments?.[row];
      let seen = 0;
      return Array.from({ length }, (_, t) => {
        if (t > 0 && segment && segment[t] !== segment[t - 1]) seen = 0;
        return Math.max(0, !mask || mask[row]![t] ? seen++ : seen - 1);
      });
    });
  }
  return [Array.from({ length }, (_, t) => t)];
}

function checkPositions(config: DecoderConfig, rows: readonly number[][], front: number): void {
  const wrong = rows.flat().find((p) => !Number.isInteger(p) || p < 0);
  if (wrong !== undefined)
    throw new RangeError(`positions: ${wrong} was given; need whole numbers from 0 on`);
  const end = Math.max(...rows.map(lengthOf));
  if (!config.rope && end > config.maxPositions) {
    throw new RangeError(
      `a sequence of ${end} positions${front === 0 ? "" : `, of which an adapter takes ${front} in front of the tokens`}; ` +
        `the model has learned ${config.maxPositions}: shorten it`,
    );
  }
}

const lengthOf = (positions: readonly number[]): number => positions.reduce((a, b) => Math.max(a, b), 0) + 1;

function positionTensor(device: Device, rows: readonly number[][]): Tensor {
  const length = rows[0]!.length;
  const shape = rows.length === 1 ? [length] : [rows.length, length];
  return device.tensor(Int32Array.from(rows.flat()), { shape, dtype: "i32" });
}

function rotationOf(
  rope: RopeConfig,
  device: Device,
  rows: readonly number[][],
  segments: Rows["segments"],
): Rotation {
  const [cos, sin] = rotationNumbers(rope, rows, segments);
  const shape = rotationShape(rows.length, rows[0]!.length, rope);
  return { cos: device.tensor(cos, { shape }), sin: device.tensor(sin, { shape }) };
}

const rotationShape = (rows: number, width: number, { dim }: RopeConfig): number[] =>
  rows === 1 ? [width, dim / 2] : [rows, 1, width, dim / 2];

/** The rotary tables. Each sequence uses its own length, on which some scalings depend: padding and neighbors have no effect. */
function rotationNumbers(
  rope: RopeConfig,
  rows: readonly number[][],
  segments: Rows["segments"],
): [cos: Float32Array, sin: Float32Array] {
  const width = rows[0]!.length;
  const half = rope.dim / 2;
  const cos = new Float32Array(rows.length * width * half);
  const sin = new Float32Array(cos.length);
  const parts = rows.flatMap((row, i) =>
    stretches(segments?.[i], width).map(([from, to]) => ({
      at: i * width + from,
      positions: row.slice(from, to),
    })),
  );
  const tableOf = rotationTables(rope);
  for (const { at, positions } of parts.sort((a, b) => lengthOf(b.positions) - lengthOf(a.positions))) {
    const tables = tableOf(positions);
    cos.set(tables.cos.subarray(0, positions.length * half), at * half);
    sin.set(tables.sin.subarray(0, positions.length * half), at * half);
  }
  return [cos, sin];
}

/** Returns tables that begin with the rows of the given positions. Called for the longest sequence first, it reuses most tables. */
function rotationTables(rope: RopeConfig): (positions: readonly number[]) => RopeTables {
  const known: { readonly length: number; readonly tables: RopeTables }[] = [];
  return (positions) => {
    const length = lengthOf(positions);
    const counted = positions.every((position, t) => position === t);
    const found = counted && known.find((one) => !frequenciesDiffer(rope, one.length, length));
    if (found) return found.tables;
    const tables = ropeTables(rope, positions, length);
    if (counted) known.push({ length, tables });
    return tables;
  };
}

/** The start and the end of each segment of a row. */
function stretches(segment: ArrayLike<number> | undefined, width: number): [from: number, to: number][] {
  const starts = [0];
  if (segment) for (let t = 1; t < width; t++) if (segment[t] !== segment[t - 1]) starts.push(t);
  return starts.map((from, i) => [from, starts[i + 1] ?? width]);
}

function visibleTokens(
  device: Device,
  { mask, segments, prompt }: Rows,
  positions: Tensor,
  window: number | null,
): Visibility {
  const length = positions.shape.at(-1)!;
  const biases: Tensor[] = [];
  if (mask) {
    const hidden = Float32Array.from(mask.flatMap((row) => Array.from(row, (token) => (token ? 0 : HIDDEN))));
    biases.push(device.tensor(hidden, { shape: [mask.length, 1, 1, length] }));
  }
  const [byQuery, byKey] = [[-1, 1, length, 1], [-1, 1, 1, length]]; // prettier-ignore
  if (segments) {
    const shape = [segments.length, length];
    const own = device.tensor(Int32Array.from(segments.flat()), { shape, dtype: "i32" });
    const key = own.reshape(byKey);
    const same = own.reshape(byQuery).eq(key);
    biases.push(where(prompt > 0 ? same.or(key.eq(0)) : same, 0, HIDDEN));
  }
  if (window !== null && length > window) {
    const shape = [1, 1, length, length];
    // In packed rows, vectors that all sequences begin with are as near to each as if it were alone.
    const distance =
      segments && prompt > 0
        ? positions.reshape(byQuery).sub(positions.reshape(byKey))
        : iota(shape, 2).sub(iota(shape, 3));
    biases.push(where(distance.lt(window), 0, HIDDEN));
  }
  return { causal: true, bias: biases.length === 0 ? null : biases.reduce((a, b) => a.add(b)) };
}

/**
 * The slots of the cache that one new token sees: those of its own and of its row's latest tokens. The host computes the bias, once for
 * all layers and heads, since it is a few kilobytes.
 */
function visibleSlots(device: Device, cache: KvCache, window: number | null): Visibility {
  const { capacity, lengths } = cache;
  const [bias] = cache.numbers(device, [lengths.length, 1, 1, capacity], "f32", () => {
    const hidden = new Float32Array(lengths.length * capacity).fill(HIDDEN);
    const end = cache.slot + 1;
    for (const [row, before] of cache.lengths.entries()) {
      const first = end - Math.min(before + 1, window ?? Infinity);
      const at = row * capacity;
      hidden.fill(0, at + Math.max(0, first), at + end);
      if (first < 0) hidden.fill(0, at + capacity + first, at + capacity); // written before the ring's last turn
    }
    return [hidden];
  });
  return { causal: false, bias: bias! };
}

function memoize(compute: (window: number | null) => Visibility): (window: number | null) => Visibility {
  const known = new Map<number | null, Visibility>();
  return (window) => {
    const found = known.get(window) ?? compute(window);
    known.set(window, found);
    return found;
  };
}
