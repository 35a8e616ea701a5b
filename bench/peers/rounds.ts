/** Measures in turns: in each round, one participant after another does some steps. The median is reported. */
import { Child } from "./child.ts";
import type { StepComparison } from "./comparisons.ts";
import type { Participant } from "./participants.ts";
import type { Work } from "../problems.ts";
import type { Answer } from "./serve.ts";

export interface Result {
  readonly participant: Participant;
  /** The median step in milliseconds; `best` is the fastest, `count` the number of steps. */
  readonly ms: number;
  readonly best: number;
  readonly count: number;
  readonly peakMb: number;
  /** The median step of each turn. */
  readonly turns: readonly number[];
}

/** Relative to a loss. Frameworks sum in other orders (2.6e-6 was seen), and a few steps of training amplify the difference. */
const LOSS_TOLERANCE = 2e-5;
/** The minimum length of a turn in milliseconds. */
const TURN_MS = 300;
const MOST_STEPS = 50;
/** Turns of each participant where PyTorch takes part: the load of a host moves a single ratio to it by a fifth. */
export const ALTERNATIONS = 15;

export const median = (list: readonly number[]): number =>
  list.toSorted((a, b) => a - b)[list.length >> 1] ?? NaN;

/** Takes turns for about `seconds`, but at least `least` rounds. Returns the answers of each child. */
async function takeTurns(
  children: readonly Child[],
  stepEstimates: readonly number[],
  seconds: number,
  least: number,
): Promise<Answer[][]> {
  const answers = children.map((): Answer[] => []);
  const started = performance.now();
  const counts = stepEstimates.map((ms) => Math.min(MOST_STEPS, Math.ceil(TURN_MS / ms)));
  for (let round = 0; round < least || performance.now() - started < 1000 * seconds; round++) {
    const order = children.map((_, i) => i);
    if (round % 2 === 1) order.reverse();
    for (const i of order) answers[i]!.push(await children[i]!.steps(counts[i]!));
  }
  return answers;
}

/** The largest difference between two loss curves, relative to the first. */
function distance(ours: readonly number[], theirs: readonly number[]): number {
  return Math.max(...ours.map((loss, i) => Math.abs(theirs[i]! - loss) / Math.abs(loss)));
}

/** Compares the losses of the first steps, then the times of the participants whose losses agree with ours. */
export async function compareSteps(
  participants: readonly Participant[],
  { work, backend }: StepComparison,
  seconds: number,
  quick: boolean,
): Promise<{ results: Result[]; faults: string[]; agreement: number }> {
  const faults: string[] = [];
  const entered: { participant: Participant; child: Child; first: Answer }[] = [];
  const children: Child[] = [];
  let agreement = 0;
  try {
    for (const participant of participants) {
      const child = new Child(participant.command(work, backend));
      children.push(child);
      try {
        const first = await child.steps(quick ? 3 : 5);
        const ours = entered[0]?.first ?? first;
        const apart = distance(ours.losses, first.losses);
        if (!(apart <= LOSS_TOLERANCE)) {
          throw new Error(`its losses are ${first.losses.join(", ")}, tiedlora's ${ours.losses.join(", ")}`);
        }
        agreement = Math.max(agreement, apart);
        entered.push({ participant, child, first });
      } catch (error) {
        faults.push(`${participant.label}: ${(error as Error).message}`);
        await child.end();
        if (participant.kind === "ours") return { results: [], faults, agreement };
      }
    }
    const estimates = entered.map(({ first }) => first.ms.at(-1)!);
    const turns = await takeTurns(
      entered.map(({ child }) => child),
      estimates,
      seconds,
      quick ? 2 : entered.some(({ participant }) => participant.kind === "pytorch") ? ALTERNATIONS : 3,
    );
    const results = entered.map(({ participant }, i): Result => {
      const ms = turns[i]!.flatMap((answer) => answer.ms);
      const peakMb = turns[i]!.at(-1)!.peakMb;
      const medians = turns[i]!.map((answer) => median(answer.ms));
      return { participant, ms: median(ms), best: Math.min(...ms), count: ms.length, peakMb, turns: medians };
    });
    return { results, faults, agreement };
  } finally {
    for (const child of children) await child.end();
  }
}

/** The median step of each of several processes, in milliseconds, measured in turns. */
export async function stepMs(make: readonly (() => Child)[], seconds: number): Promise<number[]> {
  const children = make.map((one) => one());
  try {
    const estimates: number[] = [];
    for (const child of children) estimates.push((await child.steps(3)).ms.at(-1)!);
    const turns = await takeTurns(children, estimates, seconds, 3);
    return turns.map((answers) => median(answers.flatMap(({ ms }) => ms)));
  } finally {
    for (const child of children) await child.end();
  }
}

/**
 * Milliseconds from the start of a process to the end of its first step, of each participant: `times` starts by turns, after one
 * to warm up.
 */
export async function firstSteps(make: readonly (() => Child)[], times: number): Promise<number[][]> {
  const lists = make.map((): number[] => []);
  for (let round = 0; round <= times; round++) {
    for (const [i, one] of make.entries()) {
      const started = performance.now();
      const child = one();
      await child.steps(1);
      if (round > 0) lists[i]!.push(performance.now() - started);
      await child.end();
    }
  }
  return lists;
}

/** Losses of as many first steps are compared. */
const COMPARED = 5;

/**
 * The milliseconds that `steps` steps of a new process take together, of each participant: `turns` processes by turns. Throws if losses
 * of the first steps differ from those of the first participant.
 */
export async function totals(
  participants: readonly Participant[],
  work: Work,
  steps: number,
  turns: number,
): Promise<number[][]> {
  const lists = participants.map((): number[] => []);
  let ours: readonly number[] | null = null;
  for (let turn = 0; turn < turns; turn++) {
    for (const [i, participant] of participants.entries()) {
      const child = new Child(participant.command(work, "cpu"));
      const { ms, losses } = await child.steps(steps);
      await child.end();
      ours ??= losses.slice(0, COMPARED);
      if (!(distance(ours, losses) <= LOSS_TOLERANCE))
        throw new Error(`its losses begin with ${losses.slice(0, COMPARED).join(", ")}, tiedlora's with ${ours.join(", ")}`); // prettier-ignore
      lists[i]!.push(ms.reduce((sum, one) => sum + one, 0));
    }
  }
  return lists;
}

/** The median of the ratios of turns taken together, with its interval. */
export interface Ratio {
  readonly median: number;
  /** The interval that holds the true median with a probability of at least 95 %, by order statistics; null below six turns. */
  readonly interval: readonly [low: number, high: number] | null;
  readonly turns: number;
}

/** Theirs ÷ ours, turn by turn. */
export function ratioOf(theirs: readonly number[], ours: readonly number[]): Ratio {
  const ratios = ours.map((ms, i) => theirs[i]! / ms).sort((a, b) => a - b);
  const turns = ratios.length;
  // P(fewer than k of n turns are below the median) = sum of binomials / 2^n; the largest k for which both tails hold 5 %
  let [below, choose, k] = [0, 1, 0];
  for (; k < turns; k++) {
    below += choose / 2 ** turns;
    if (2 * below > 0.05) break;
    choose = (choose * (turns - k)) / (k + 1);
  }
  const interval = k === 0 ? null : ([ratios[k - 1]!, ratios[turns - k]!] as const);
  return { median: median(ratios), interval, turns };
}
