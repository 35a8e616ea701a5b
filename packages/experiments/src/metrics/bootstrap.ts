/**
 * The paired bootstrap: how certain the difference of two methods is that were trained from the same seeds and asked the same
 * questions (Efron & Tibshirani 1993; for metrics of a corpus: Koehn 2004, "Statistical Significance Tests for Machine Translation
 * Evaluation"). What a seed or a question does to both methods cancels.
 */
import { Rng } from "../toy-tasks/rng.ts";

/** The scores of two methods on one task. */
export interface Pairing {
  /**
   * By seed and example, the numbers from which scores are computed: `[seed][example][part]`. Both methods have the same seeds and the
   * same examples, in the same order.
   */
  readonly ours: readonly (readonly (readonly number[])[])[];
  readonly theirs: readonly (readonly (readonly number[])[])[];
  /** The score of `count` examples, from the sums of their numbers. */
  readonly score: (sums: readonly number[], count: number) => number;
}

/** A difference of scores, ours less theirs. */
export interface Difference {
  /** The mean over tasks and seeds. */
  readonly mean: number;
  /** The ends of its 95 % interval: the 2.5 % and 97.5 % quantiles of the resampled differences. */
  readonly low: number;
  readonly high: number;
  /** Two-sided: twice the share of resampled differences that are zero or on the other side of it. From 1 / (samples + 1) to 1. */
  readonly p: number;
}

/** How often samples are drawn, and from which seed. */
export interface BootstrapOptions {
  /** How often seeds and examples are drawn anew. Default: 10,000. */
  readonly samples?: number;
  /** The seed of the draws. Default: 0. */
  readonly seed?: number;
}

/**
 * The difference of two methods, as a mean over tasks (one or more) and seeds. Each sample draws seeds with replacement, the same for all
 * tasks, and each task's examples with replacement, the same for all its seeds and for both methods. Throws RangeError if the shapes of
 * the two differ, or there is nothing to draw from.
 */
export function pairedBootstrap(
  tasks: readonly Pairing[],
  { samples = 10_000, seed = 0 }: BootstrapOptions = {},
): Difference {
  if (!Number.isSafeInteger(samples) || samples < 1)
    throw new RangeError(`pairedBootstrap: samples is ${samples}; expected a whole number of at least 1`);
  const seeds = checkedSeeds(tasks);
  const rng = new Rng(seed, "bootstrap");
  const flat = tasks.map(flattened);
  const once = (count: number): number[] => Array<number>(count).fill(1);
  const mean = difference(flat, once(seeds), flat.map(({ examples }) => once(examples))); // prettier-ignore
  const drawn = Float64Array.from({ length: samples }, () => {
    const ofSeeds = draws(rng, seeds);
    const value = difference(flat, ofSeeds, flat.map(({ examples }) => draws(rng, examples))); // prettier-ignore
    return Math.abs(value) < ROUNDING ? 0 : value;
  }).sort();
  const below = drawn.filter((value) => value <= 0).length;
  const above = drawn.filter((value) => value >= 0).length;
  const p = Math.min(1, (2 * (1 + Math.min(below, above))) / (samples + 1));
  return { mean, low: quantile(drawn, 0.025), high: quantile(drawn, 0.975), p };
}

/** How often each of `count` things is drawn in `count` draws. */
function draws(rng: Rng, count: number): number[] {
  const times = Array<number>(count).fill(0);
  for (let i = 0; i < count; i++) times[rng.int(count)]!++;
  return times;
}

/** Differences below it, in percent, are zeros with errors of rounding. */
const ROUNDING = 1e-9;

/** A pairing with the numbers of each seed in one list, example by example. */
interface Flat {
  readonly ours: readonly Float64Array[];
  readonly theirs: readonly Float64Array[];
  readonly examples: number;
  readonly parts: number;
  readonly score: Pairing["score"];
}

function flattened({ ours, theirs, score }: Pairing): Flat {
  const flat = (seeds: Pairing["ours"]): Float64Array[] =>
    seeds.map((rows) => Float64Array.from(rows.flat()));
  return {
    ours: flat(ours),
    theirs: flat(theirs),
    examples: ours[0]!.length,
    parts: ours[0]![0]!.length,
    score,
  };
}

/** The difference, with each seed and each example of each task as often as was drawn. */
function difference(
  tasks: readonly Flat[],
  ofSeeds: readonly number[],
  ofExamples: readonly (readonly number[])[],
): number {
  let [sum, count] = [0, 0];
  for (const [t, { ours, theirs, examples, parts, score }] of tasks.entries()) {
    const times = ofExamples[t]!;
    for (const [s, often] of ofSeeds.entries()) {
      if (often === 0) continue;
      sum += often * (score(sumsOf(ours[s]!, times, parts), examples) - score(sumsOf(theirs[s]!, times, parts), examples)); // prettier-ignore
      count += often;
    }
  }
  return sum / count;
}

function sumsOf(numbers: Float64Array, times: readonly number[], parts: number): number[] {
  const sums = Array<number>(parts).fill(0);
  let at = 0;
  for (const often of times) for (let j = 0; j < parts; j++) sums[j]! += often * numbers[at++]!;
  return sums;
}

/** The quantile of sorted values, interpolated between neighbors. */
function quantile(sorted: Float64Array, share: number): number {
  const at = share * (sorted.length - 1);
  const low = Math.floor(at);
  const [a, b] = [sorted[low]!, sorted[Math.min(low + 1, sorted.length - 1)]!];
  return a + (at - low) * (b - a);
}

/** Checks the shapes; returns the number of seeds. */
function checkedSeeds(tasks: readonly Pairing[]): number {
  const [first] = tasks;
  if (first === undefined) throw new RangeError("pairedBootstrap: there are no tasks; expected at least one");
  const seeds = first.ours.length;
  for (const { ours, theirs } of tasks) {
    const shape = [ours, theirs].map((one) => one.map((examples) => examples.length).join(", "));
    if (
      shape[0] !== shape[1] ||
      ours.length !== seeds ||
      seeds === 0 ||
      new Set(ours.map(({ length }) => length)).size !== 1 ||
      ours[0]!.length === 0
    )
      // prettier-ignore
      throw new RangeError(
        `pairedBootstrap: examples by seed are [${shape[0]}] of ours and [${shape[1]}] of theirs; expected ${seeds || "some"} seeds with equally many examples of both, one or more`,
      );
  }
  return seeds;
}
