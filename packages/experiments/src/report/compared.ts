/** Each method and rank against one of them, by the paired bootstrap over seeds and test examples. */
import { pairedBootstrap, type Difference, type Pairing } from "../metrics/bootstrap.ts";
import type { RunResult } from "../sweep/config.ts";
import { MEASURED, type Measured, partsOf, scoreOfParts } from "../sweep/examples.ts";
import type { Group, Measure, Summary } from "./summary.ts";

/** A method at a rank. */
export interface Variant {
  readonly method: string;
  readonly rank: number;
}

/** The difference of a method to the one that all are compared with. */
export interface Comparison extends Difference {
  readonly group: Group;
  /** What differs: the task's main metric, or the loss per token. */
  readonly measure: Measure;
  readonly seeds: number;
  /** The number of test examples, of all tasks together. */
  readonly examples: number;
}

export interface Compared {
  /** What all others are compared with. */
  readonly against: Variant;
  readonly comparisons: readonly Comparison[];
  /** Groups that could not be compared by anything: their runs, or those of the other, have no scores of single examples or were asked other questions. */
  readonly unpaired: readonly Group[];
}

/** The rank of LoRA that others are compared with, if it is there and nothing else is asked for. */
const USUAL_RANK = 8;

/**
 * Compares all methods and ranks with `against`; default: LoRA at the rank nearest to 8. Null if there is no LoRA. Throws RangeError if
 * `against` is not in the summary.
 */
export function compared(summary: Summary, against: Variant | undefined): Compared | null {
  const all = [...summary.averages, ...summary.groups];
  const chosen = against ?? usual(all);
  if (chosen === null) return null;
  const isChosen = ({ method, rank }: Variant): boolean => method === chosen.method && rank === chosen.rank;
  if (!all.some(isChosen)) {
    const there = [...new Set(all.map(({ method, rank }) => `${method}:${rank}`))].join(", ");
    throw new RangeError(`there are no runs of ${chosen.method} at rank ${chosen.rank} to compare with; there are ${there}`);
  } // prettier-ignore
  const comparisons: Comparison[] = [];
  const unpaired: Group[] = [];
  for (const group of all) {
    if (isChosen(group)) continue;
    const other = all.find((one) => one.task === group.task && isChosen(one));
    const own = other === undefined ? [] : MEASURED.flatMap((measured) => differenceOf(group, other, measured) ?? []); // prettier-ignore
    comparisons.push(...own);
    if (own.length === 0) unpaired.push(group);
  }
  return { against: chosen, comparisons, unpaired };
}

function usual(groups: readonly Group[]): Variant | null {
  const ranks = groups.filter(({ method }) => method === "lora").map(({ rank }) => rank);
  if (ranks.length === 0) return null;
  const distance = (rank: number): number => Math.abs(Math.log(rank / USUAL_RANK));
  return { method: "lora", rank: ranks.reduce((best, one) => (distance(one) < distance(best) ? one : best)) };
}

const LOSS: Measure = { name: "loss", higherIsBetter: false };

/** The difference of two groups in one measure; null if they cannot be paired. */
function differenceOf(group: Group, other: Group, measured: Measured): Comparison | null {
  const pairings = pairingsOf(group, other, measured);
  if (pairings === null) return null;
  const examples = pairings.reduce((sum, { ours }) => sum + ours[0]!.length, 0);
  const measure = measured === "losses" ? LOSS : group.measure;
  return { ...pairedBootstrap(pairings), group, measure, seeds: pairings[0]!.ours.length, examples };
}

/** The numbers of two groups by task, over the seeds that both have for all tasks; null if they cannot be paired. */
function pairingsOf(ours: Group, theirs: Group, measured: Measured): Pairing[] | null {
  // sorted, so that the draws do not depend on the order of the runs
  const tasks = [...new Set(ours.runs.map(({ config }) => config.task))].sort();
  const of = ({ runs }: Group, task: string, seed: number): RunResult | undefined =>
    runs.find(({ config }) => config.task === task && config.seed === seed);
  const seeds = [...ours.bySeed.keys()].filter((seed) => theirs.bySeed.has(seed)).sort((a, b) => a - b);
  if (seeds.length === 0) return null;
  const pairings: Pairing[] = [];
  for (const task of tasks) {
    const pairs = seeds.map((seed) => [of(ours, task, seed), of(theirs, task, seed)] as const);
    const all = pairs.flat();
    if (all.some((run) => run?.test.examples?.[measured] === undefined)) return null;
    const score = scoreOfParts(all[0]!, measured);
    const asked = new Set(all.map((run) => run!.test.examples!.questions));
    if (asked.size !== 1 || score === null) return null;
    const parts = (side: 0 | 1): number[][][] =>
      pairs.map((pair) => partsOf(pair[side]!.test.examples![measured]!));
    pairings.push({ ours: parts(0), theirs: parts(1), score });
  }
  return pairings;
}

/** "lora rank 8" */
export const variantName = ({ method, rank }: Variant): string => `${method} rank ${rank}`;

/** "< 0.001", "0.032" */
export const pText = (p: number): string => (p < 0.001 ? "< 0.001" : p.toFixed(3));

/** A difference or an end of its interval, with as many digits as its measure has room for. */
export const differenceText = (
  value: number,
  { measure }: Pick<Comparison, "measure">,
  digits: number,
): string => value.toFixed(measure === LOSS ? Math.max(3, digits) : digits);
