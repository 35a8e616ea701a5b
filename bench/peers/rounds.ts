/** Measures in turns: in each round, one participant after another does some steps. The median is reported. */
import { Child } from "./child.ts";
import type { StepComparison } from "./comparisons.ts";
import type { Participant } from "./participants.ts";
import type { Answer } from "./serve.ts";

export interface Result {
  readonly participant: Participant;
  /** The median step in milliseconds; `best` is the fastest, `count` the number of steps. */
  readonly ms: number;
  readonly best: number;
  readonly count: number;
  readonly peakMb: number;
}

/** Relative to a loss. Frameworks sum in other orders (2.6e-6 was seen), and a few steps of training amplify the difference. */
const LOSS_TOLERANCE = 2e-5;
/** The minimum length of a turn in milliseconds. */
const TURN_MS = 300;
const MOST_STEPS = 50;

const median = (list: readonly number[]): number => list.toSorted((a, b) => a - b)[list.length >> 1] ?? NaN;

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
      quick ? 2 : 3,
    );
    const results = entered.map(({ participant }, i): Result => {
      const ms = turns[i]!.flatMap((answer) => answer.ms);
      const peakMb = turns[i]!.at(-1)!.peakMb;
      return { participant, ms: median(ms), best: Math.min(...ms), count: ms.length, peakMb };
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

/** Milliseconds from the start of a process to the end of its first step: the median of `times` runs, after one to warm up. */
export async function firstStep(make: () => Child, times: number): Promise<number> {
  const list: number[] = [];
  for (let i = 0; i <= times; i++) {
    const started = performance.now();
    const child = make();
    await child.steps(1);
    if (i > 0) list.push(performance.now() - started);
    await child.end();
  }
  return median(list);
}
