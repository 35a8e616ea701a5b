/** Batches of several sets of examples, each with a weight: how many examples of each come, and in which order. */
import { checkAbove } from "../train/losses/checks.ts";
import { type BatchOptions, type BatchSource, exampleOrder, windowedBatches } from "./batches.ts";
import type { EncodedExample } from "./encode.ts";

/** A set of examples, and its weight. */
export interface WeightedSet {
  readonly examples: readonly EncodedExample[];
  /** How many of its examples come, relative to the weights of the other sets, whatever its size. */
  readonly weight: number;
}

/** The number of positions after which the order of sets repeats. */
const CYCLE = 1000;

/**
 * Batches that take from each set a share of examples in proportion to its weight; each set is shuffled anew whenever it is used up.
 * There are no epochs. The same index always gives the same batch. Throws RangeError for an empty set, or a weight that is not above 0.
 */
export function mixedBatches(sets: readonly WeightedSet[], options: BatchOptions): BatchSource {
  if (sets.length === 0 || sets.some(({ examples }) => examples.length === 0))
    throw new RangeError("mixed batches: a set has no examples; leave it out");
  for (const [i, { weight }] of sets.entries()) checkAbove(`mixed batches: weight ${i}`, weight);
  const { slots, before } = cycleOf(sets.map(({ weight }) => weight));
  const orders = sets.map(({ examples }, i) => exampleOrder(examples.length, options.seed + i));
  const at = (position: number): EncodedExample => {
    const [turn, place] = [Math.floor(position / CYCLE), position % CYCLE];
    const set = slots[place]!;
    const taken = before[set]!;
    return sets[set]!.examples[orders[set]!(turn * taken[CYCLE]! + taken[place]!)]!;
  };
  return windowedBatches(at, options);
}

/** Which set each position of a cycle takes from, and how many examples of each set come before it. */
function cycleOf(weights: readonly number[]): { slots: Uint16Array; before: Uint32Array[] } {
  const total = weights.reduce((a, b) => a + b);
  const slots = new Uint16Array(CYCLE);
  const before = weights.map(() => new Uint32Array(CYCLE + 1));
  for (let place = 0; place < CYCLE; place++) {
    const owed = weights.map((weight, i) => (weight / total) * (place + 1) - before[i]![place]!);
    const next = owed.indexOf(Math.max(...owed));
    slots[place] = next;
    for (const [i, counts] of before.entries()) counts[place + 1] = counts[place]! + Number(i === next);
  }
  return { slots, before };
}
