/**
 * Where a long list of operations repeats itself, as an unrolled loop does, and where to cut it, so that most pieces are alike: the same
 * pieces for every number of repeats, but for how many there are. Nothing depends on it but speed: a list may be cut anywhere.
 * @module
 */

/** Operations in an order of execution. */
export interface Operations {
  /** What each does, as a hash. Operations of different iterations of a loop are equal if what they read is as far away, or far. */
  readonly codes: Int32Array;
  /** The place of the last operation that reads the result of each; its own, if none does. */
  readonly lastUses: Int32Array;
  /** The bytes that each result takes if it is kept; 0 for results that are made again where they are read. */
  readonly bytes: Float64Array;
  /** The places of the operations whose results operation `at` reads. */
  readonly inputs: (at: number) => readonly number[];
}

/** `count` times the same `period` operations, from place `from` on. */
export interface Repeats {
  readonly from: number;
  readonly period: number;
  readonly count: number;
}

/** Fewer repeats than this, or fewer operations in repeats, are not cut. */
const LEAST_REPEATS = 64;
const LEAST_OPERATIONS = 2048;
/** Pieces are of at least so many operations, if there are enough: fewer would not gain from being planned together. */
const PIECE = 512;
/** Equal codes in a row that suggest a repeat. */
const GRAM = 8;

/** The places where pieces begin, in order, without the first, which is 0; empty if the list has no long repeats. */
export function cutsOf(operations: Operations): number[] {
  const all = repeatsOf(operations.codes).filter((repeats) => isChained(operations, repeats));
  const repeated = all.reduce((sum, { period, count }) => sum + period * count, 0);
  return repeated < LEAST_OPERATIONS ? [] : all.flatMap((repeats) => cutsIn(operations, repeats));
}

/** The longest repeats in a list, from left to right, each at least `LEAST_REPEATS` times. Takes time in proportion to the list. */
export function repeatsOf(codes: Int32Array): Repeats[] {
  const found: Repeats[] = [];
  const seen = new Map<number, number>(); // by the hash of GRAM codes: where they were last
  let end = 0; // up to here, codes repeat those of a period before, but not often enough
  for (let at = 0; at + GRAM <= codes.length; at++) {
    let hash = 0;
    for (let i = 0; i < GRAM; i++) hash = (Math.imul(hash, 31) + codes[at + i]!) | 0;
    const period = at - (seen.get(hash) ?? at);
    seen.set(hash, at);
    if (period === 0 || at < end) continue;
    end = at;
    while (end < codes.length && codes[end] === codes[end - period]) end++;
    const count = Math.floor((end - at) / period) + 1;
    if (count < LEAST_REPEATS) continue;
    found.push({ from: at - period, period, count });
    seen.clear();
    at = end - 1;
  }
  return found;
}

/** Whether each iteration reads a result of the one before. If none does, as in the updates of many weights, they belong together. */
function isChained({ inputs }: Operations, { from, period, count }: Repeats): boolean {
  const start = from + period * (count >> 1);
  for (let at = start; at < start + period; at++)
    if (inputs(at).some((input) => input >= start - period && input < start)) return true;
  return false;
}

/**
 * Cuts between iterations, where the fewest bytes are in use: pieces of one number of iterations, then one or two of each smaller power of
 * two, so that pieces of the same few kinds make up every number. The first and the last iteration stay with what is around them.
 */
function cutsIn(operations: Operations, { from, period, count }: Repeats): number[] {
  const first = from + period + narrowest(operations, from + period * (count >> 1), period);
  let rest = Math.floor((from + period * count - first) / period) - 1;
  const sizes: number[] = [];
  for (let size = 1; rest > 0; size *= 2) {
    if (size * period >= PIECE) {
      sizes.push(...Array.from({ length: rest }, () => size));
      break;
    }
    const those = rest % 2 === 1 ? 1 : 2;
    sizes.push(...[size, size].slice(0, those));
    rest = (rest - those) / 2;
  }
  const cuts = [first];
  for (const size of sizes.reverse()) cuts.push(cuts.at(-1)! + size * period);
  return cuts;
}

/** How far after `start` the fewest bytes are handed on from one operation to the next ones; what is read far away is kept anyway. */
function narrowest({ lastUses, bytes }: Operations, start: number, period: number): number {
  const changes = new Float64Array(period + 1);
  for (let at = start - 2 * period; at < start + period; at++) {
    const last = lastUses[at]!;
    if (at < 0 || last - at > 2 * period) continue;
    const [begin, end] = [Math.max(at + 1 - start, 0), Math.min(last - start + 1, period)];
    if (end <= begin) continue;
    changes[begin]! += bytes[at]!;
    changes[end]! -= bytes[at]!;
  }
  let [least, best, sum] = [Infinity, 0, 0];
  for (let i = 0; i < period; i++) {
    sum += changes[i]!;
    if (sum < least) [least, best] = [sum, i];
  }
  return best;
}
