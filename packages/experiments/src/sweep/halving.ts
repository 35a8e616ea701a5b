/**
 * Successive halving as the schedule of a sweep: which runs there are to do now, and why. All of it follows from the sweep's file and
 * the results that there are, so that every process that sees the same results decides the same.
 */
import { Rng } from "../toy-tasks/rng.ts";
import { Competition, type Promotion, type Standing } from "./competition.ts";
import { BASELINE, type Outcome, type RunConfig, runId, validationLoss } from "./config.ts";
import { expandSweep } from "./expand.ts";
import { halvingOf, type Rungs, rungsOf } from "./search.ts";
import type { SweepSpec } from "./spec.ts";
import { competitionsOf, type Trial } from "./trials.ts";

/** That a trial goes on, and why: a file of the sweep's folder. */
export interface Decision {
  /** The runs that follow from it, one for each seed; the first one names the decision. */
  readonly runs: readonly string[];
  /** The task, method and rank within which it was compared. */
  readonly competition: string;
  /** The step up to which it was trained and compared, and that to which it goes on. */
  readonly from: number;
  readonly to: number;
  /** Its validation loss up to there: the lowest of each seed, as a mean over seeds. */
  readonly loss: number;
  /** Its place among the first `among` trials in the order of the competition, of which the best `keeps` go on. */
  readonly place: number;
  readonly among: number;
  readonly keeps: number;
}

/** How far a trial has come. */
export interface TrialStanding extends Standing {
  readonly competition: string;
  /** The whole run of each seed. */
  readonly trial: Trial;
  /** The steps that it has trained, or is to train next. */
  readonly steps: number;
}

interface Contest {
  readonly name: string;
  readonly trials: readonly Trial[];
  readonly competition: Competition;
}

/** A run of a trial at a rung: by its id, results find their place. */
interface Place {
  readonly contest: Contest;
  readonly trial: number;
  readonly rung: number;
}

export interface HalvingOptions {
  /** The ids that name decisions of earlier processes; they hold. */
  readonly decided?: ReadonlySet<string>;
  /** Told of each decision that is not among them, before a run follows from it. */
  readonly onDecision?: (decision: Decision) => void;
}

/** The most runs that are offered at once: more than there are processes. */
const MOST = 2000;

/** The runs of a sweep whose search is successive halving. */
export class HalvingSchedule {
  readonly #rungs: Rungs;
  readonly #baselines: readonly RunConfig[];
  readonly #contests: readonly Contest[];
  readonly #places = new Map<string, Place>();
  readonly #losses = new Map<string, number>();
  readonly #options: HalvingOptions;
  /** The runs at each rung that there are to do, in their order; the first list is of baselines. */
  readonly #todo: Map<string, RunConfig>[];

  constructor(spec: SweepSpec, options: HalvingOptions = {}) {
    const halving = halvingOf(spec)!;
    this.#options = options;
    this.#rungs = rungsOf(spec);
    const configs = expandSweep(spec);
    this.#baselines = configs.filter(({ method }) => method === BASELINE);
    const { decided = new Set() } = options;
    this.#contests = competitionsOf(configs.filter(({ method }) => method !== BASELINE)).map(
      ({ name, trials }) => {
        // In the order of a grid the first results are those of neighbors, which say little about the others.
        const shuffled = new Rng(halving.seed, "order", name).shuffle(trials);
        const kept = (trial: number, rung: number): boolean =>
          decided.has(runId(this.#at(shuffled[trial]![0]!, rung + 1)));
        const shape = { rungs: this.#rungs.count, factor: halving.factor };
        return { name, trials: shuffled, competition: new Competition(shuffled.length, shape, kept) };
      },
    );
    this.#todo = Array.from({ length: this.#rungs.count + 1 }, () => new Map<string, RunConfig>());
    for (const config of this.#baselines) this.#todo.at(-1)!.set(runId(config), config);
    const most = Math.max(0, ...this.#contests.map(({ trials }) => trials.length));
    for (let trial = 0; trial < most; trial++)
      for (const contest of this.#contests) if (trial < contest.trials.length) this.#enter(contest, trial, 0);
  }

  /** The config of a whole run at a rung. */
  #at(config: RunConfig, rung: number): RunConfig {
    return rung + 1 === this.#rungs.count
      ? config
      : { ...config, until: this.#rungs.at(rung, config.warmup) };
  }

  /** Adds the runs of a trial at a rung. */
  #enter(contest: Contest, trial: number, rung: number): void {
    for (const whole of contest.trials[trial]!) {
      const config = this.#at(whole, rung);
      const id = runId(config);
      this.#places.set(id, { contest, trial, rung });
      if (!this.#losses.has(id)) this.#todo[rung]!.set(id, config);
    }
    this.#tell(contest, trial, rung);
  }

  /** Tells the competition the loss of a trial at a rung, once all its seeds have one; what is promoted enters the next rung. */
  #tell(contest: Contest, trial: number, rung: number): void {
    let sum = 0;
    for (const whole of contest.trials[trial]!) {
      const loss = this.#losses.get(runId(this.#at(whole, rung)));
      if (loss === undefined) return;
      sum += loss;
    }
    const { competition, trials } = contest;
    for (const promotion of competition.tell(trial, rung, sum / trials[trial]!.length)) {
      this.#decide(contest, promotion);
      this.#enter(contest, promotion.trial, promotion.rung + 1);
    }
  }

  #decide({ name, trials }: Contest, { trial, rung, ...why }: Promotion): void {
    const { decided, onDecision } = this.#options;
    const runs = trials[trial]!.map((whole) => runId(this.#at(whole, rung + 1)));
    if (onDecision === undefined || decided?.has(runs[0]!)) return;
    const { warmup } = trials[trial]![0]!;
    const [from, to] = [this.#rungs.at(rung, warmup), this.#rungs.at(rung + 1, warmup)];
    onDecision({ runs, competition: name, from, to, ...why });
  }

  /** The number of runs that there are so far: promotions add to it. */
  get total(): number {
    return this.#baselines.length + this.#places.size;
  }

  /** Takes note of results and failures, in any order; only the first news of a run counts. */
  learn(results: readonly Outcome[], failed: readonly string[] = []): void {
    for (const result of results) this.#note(result.id, validationLoss(result));
    for (const id of failed) this.#note(id, Infinity);
  }

  #note(id: string, loss: number): void {
    if (this.#losses.has(id)) return;
    this.#losses.set(id, loss);
    const place = this.#places.get(id);
    if (place === undefined) return void this.#todo.at(-1)!.delete(id);
    this.#todo[place.rung]!.delete(id);
    this.#tell(place.contest, place.trial, place.rung);
  }

  /** The runs that there are to do now: those without an adapter, then the highest rung first. Of very many, the first ones. */
  runs(): readonly RunConfig[] {
    const list: RunConfig[] = [];
    for (const runs of this.#todo.toReversed()) {
      for (const config of runs.values()) {
        list.push(config);
        if (list.length === MOST) return list;
      }
    }
    return list;
  }

  /** The ids of all runs that there are so far. */
  ids(): string[] {
    return [...this.#baselines.map(runId), ...this.#places.keys()];
  }

  /** How far each trial has come. */
  standings(): TrialStanding[] {
    return this.#contests.flatMap(({ name, trials, competition }) =>
      competition.standings().map((standing, i) => ({
        ...standing,
        competition: name,
        trial: trials[i]!,
        steps: this.#rungs.at(standing.rung, trials[i]![0]!.warmup),
      })),
    );
  }
}
