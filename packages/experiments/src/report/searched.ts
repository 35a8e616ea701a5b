/** What a search did with each trial: how far it went, and why no further. */
import type { Outcome, RunConfig } from "../sweep/config.ts";
import type { TrialStanding } from "../sweep/halving.ts";
import { halvingOf, rungsOf } from "../sweep/search.ts";
import type { SweepSpec } from "../sweep/spec.ts";
import { settingName, VARIED } from "./varied.ts";

/** A trial that was stopped before the steps of a whole run. */
export interface Stopped {
  /** The task, method and rank within which it was compared. */
  readonly competition: string;
  /** "lr 0.3, warmup 0": the settings that vary within the competition. */
  readonly settings: string;
  /** The steps after which it stopped. */
  readonly steps: number;
  /** Its validation loss there; Infinity if the run failed. */
  readonly loss: number;
  /** Its place among the trials that came so far. */
  readonly place: number;
  readonly among: number;
}

/** The findings of a search by successive halving. */
export interface Searched {
  /** The steps of each rung, which differ where warm-ups do; the last are those of a whole run. */
  readonly rungs: readonly (readonly number[])[];
  readonly factor: number;
  /** For each competition, the number of trials that reached each rung. */
  readonly reached: ReadonlyMap<string, readonly number[]>;
  readonly stopped: readonly Stopped[];
  /** The steps that were trained, and those of a grid of the same trials. */
  readonly steps: number;
  readonly gridSteps: number;
}

/** Describes the standings of the trials of a sweep whose search is successive halving. */
export function searched(
  spec: SweepSpec,
  standings: readonly TrialStanding[],
  outcomes: readonly Outcome[],
): Searched {
  const halving = halvingOf(spec)!;
  const { count, at } = rungsOf(spec);
  const warmups = [...new Set(standings.map(({ trial }) => trial[0]!.warmup))].sort((a, b) => a - b);
  const rungs = Array.from({ length: count }, (_, rung) => [
    ...new Set(warmups.map((warmup) => at(rung, warmup))),
  ]);
  const reached = new Map<string, number[]>();
  const configs = new Map<string, RunConfig[]>();
  for (const { competition, rung, trial } of standings) {
    const counts = reached.get(competition) ?? rungs.map(() => 0);
    for (let i = 0; i <= rung; i++) counts[i]!++;
    reached.set(competition, counts);
    configs.set(competition, [...(configs.get(competition) ?? []), trial[0]!]);
  }
  const varied = new Map([...configs].map(([name, all]) => [name, VARIED.filter((key) => new Set(all.map((one) => one[key])).size > 1)])); // prettier-ignore
  const stopped = standings
    .filter((one) => one.stopped)
    .map(({ competition, trial: [config], steps, loss, place, among }): Stopped => ({
      competition,
      settings: varied.get(competition)!.map((key) => `${settingName(key)} ${config![key]}`).join(", "),
      steps,
      loss: loss ?? Infinity,
      place: place ?? among,
      among,
    })); // prettier-ignore
  return {
    rungs,
    factor: halving.factor,
    reached,
    stopped,
    steps: trainedSteps(outcomes),
    gridSteps: standings.reduce((sum, { trial }) => sum + trial.length * spec.train.steps, 0),
  };
}

/** The steps of all runs, those of a run that went on counted once. */
function trainedSteps(outcomes: readonly Outcome[]): number {
  const most = new Map<string, number>();
  for (const { config, steps } of outcomes) {
    const id = JSON.stringify({ ...config, until: undefined });
    most.set(id, Math.max(most.get(id) ?? 0, steps));
  }
  return [...most.values()].reduce((a, b) => a + b, 0);
}
