/** What goes on in a sweep's folder: which runs have ended, who performs which, and how long the rest may take. */
import { BASELINE, isWhole, type Outcome, runId } from "../../sweep/config.ts";
import type { Schedule } from "../../sweep/source.ts";
import { Claims, type ClaimState } from "./claims.ts";
import type { RunStore } from "./store.ts";

/** Who performs a run. */
export interface Performing {
  readonly id: string;
  /** The agent; null where its claim says nothing yet. */
  readonly host: string | null;
  readonly pid: number | null;
  /** When this attempt began, as ISO 8601. */
  readonly since: string | null;
  /** The number of the attempt, from 1: each agent that died in the middle of the run makes another one necessary. */
  readonly attempt: number;
  readonly step: number;
  /** The seconds since the last sign of life. */
  readonly silent: number;
  /** Whether the agent is taken for dead, so that the next one that is free takes the run over. */
  readonly dead: boolean;
}

/** A run that is being performed. */
export interface RunningRun extends Performing {
  /** The steps that the run comes to; 0 for the model without an adapter, which is only measured. */
  readonly steps: number;
}

/** The state of a sweep. */
export interface SweepStatus {
  /** The number of runs; the most that there can be if the sweep is a search. */
  readonly runs: number;
  readonly finished: number;
  readonly failed: readonly { readonly id: string; readonly message: string }[];
  readonly running: readonly RunningRun[];
  /** The number of runs that nobody performs yet. */
  readonly waiting: number;
  /** An estimate of the time until all have ended, if no agent joins or leaves; null where nobody is at work or nothing has finished. */
  readonly secondsLeft: number | null;
}

/** Reads the state of a sweep whose agents share its folder. */
export async function sweepStatus(
  store: RunStore,
  schedule: Schedule,
  staleSeconds?: number,
): Promise<SweepStatus> {
  const claims = new Claims(store.directory, staleSeconds);
  // Claims first: of a run that ends meanwhile, the outcome is seen.
  const states = await claims.examine(await claims.list());
  return statusOf(store, schedule, states.map(performing));
}

/** The state of a sweep whose runs are performed by those that are named, who were asked before the results in the folder. */
export async function statusOf(
  store: RunStore,
  schedule: Schedule,
  states: readonly Performing[],
): Promise<SweepStatus> {
  const [outcomes, failures] = await Promise.all([store.outcomes(), store.failures()]);
  schedule.learn?.(outcomes, failures.map(({ id }) => id)); // prettier-ignore
  const planned = new Map(schedule.runs().map((config) => [runId(config), config]));
  // What a schedule that learns gives to do is only what is left.
  const parts = new Set(schedule.ids?.() ?? planned.keys());
  const isPart = (id: string): boolean => parts.has(id);
  const done = outcomes.filter(({ id }) => isPart(id));
  const ended = new Set(done.map(({ id }) => id));
  const running = states.flatMap((state): RunningRun[] => {
    const config = planned.get(state.id);
    if (config === undefined || ended.has(state.id)) return [];
    return [{ ...state, steps: config.until ?? config.steps }];
  });
  const taken = new Set(running.map(({ id }) => id));
  const failed = failures.filter(({ id }) => isPart(id) && !ended.has(id) && !taken.has(id));
  const counts = { runs: schedule.total, finished: done.length };
  const waiting = Math.max(0, schedule.total - done.length - failed.length - running.length);
  return {
    ...counts,
    failed: failed.map(({ id, message }) => ({ id, message })),
    running,
    waiting,
    secondsLeft: secondsLeft(done, running, waiting),
  };
}

function performing({ id, attempt, text, silent, dead }: ClaimState): Performing {
  const { host = null, pid = null, since = null, step = 0 } = text ?? {};
  return { id, host, pid, since, attempt, step, silent, dead };
}

/** From the mean duration of runs that trained, the part that is left of those that run, and the number of agents' processes at work. */
function secondsLeft(
  done: readonly Outcome[],
  running: readonly RunningRun[],
  waiting: number,
): number | null {
  const trained = done.filter(({ config }) => config.method !== BASELINE);
  const sample = trained.length > 0 ? trained : done.filter(isWhole);
  const alive = running.filter(({ dead }) => !dead);
  if (waiting + running.length === 0) return 0;
  if (sample.length === 0 || alive.length === 0) return null;
  const mean = sample.reduce((sum, { duration, seconds }) => sum + (duration ?? seconds), 0) / sample.length;
  const parts = alive.map(({ step, steps }) => (steps === 0 ? 1 : Math.max(0, 1 - step / steps)));
  const lost = running.length - alive.length;
  const work = parts.reduce((sum, part) => sum + part, 0) + lost + waiting;
  // What runs takes at least as long as the longest part, however many are at work.
  return mean * Math.max(work / alive.length, ...parts);
}
