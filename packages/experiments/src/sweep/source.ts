/**
 * Where the runs of a sweep come from, and where their results go. What performs runs (the pool of processes) knows nothing
 * else of a sweep: the runs may be claimed in a shared folder, or taken from a queue. Which runs there are is a schedule's part.
 */
import type { Outcome, RunConfig } from "./config.ts";

/** Hands out runs, each to one agent at a time. An agent is a process that performs runs of a sweep. */
export interface RunSource {
  /**
   * The next run for this process to perform. Waits as long as no run is free but others may become so: those of agents that
   * die, or those that a schedule derives from results. Null once all runs have ended, or after `signal`.
   */
  next(signal: AbortSignal): Promise<ClaimedRun | null>;
  /**
   * The most results of one process that are on their way at once; meanwhile it performs its next runs, and a process that is killed
   * loses what is on its way. 1: each result is published before the next run. Default: 16.
   */
  readonly publishesAtOnce?: number;
}

/** A run that is this process's to perform. Ends by one call of `publish`, `fail` or `release`. */
export interface ClaimedRun {
  readonly config: RunConfig;
  /**
   * The file to which the state of the run is saved while it trains, and from which it goes on if it is there; null: the run
   * begins anew wherever it is performed.
   */
  readonly checkpoint: string | null;
  /** Aborted once the run has become another agent's, because this one did not show signs of life. */
  readonly lost: AbortSignal;
  /** Told of every step. */
  onStep?(step: number, loss: number): void;
  /** Told each time after `checkpoint` was written. */
  onSaved?(step: number): void;
  /** Makes the result known, unless the run has a result, or is another agent's by now. */
  publish(result: Outcome): Promise<Publication>;
  /** Makes known that the run failed. Resolves to whether it was still this agent's. */
  fail(message: string): Promise<boolean>;
  /** Gives the run back, for any agent to go on with. */
  release(): Promise<void>;
}

/** What became of a result. */
export interface Publication {
  /** Whether it is the run's result; otherwise another agent's is, or the run is another agent's by now. */
  readonly counts: boolean;
  /** How it differs from the run's result where the same kind of device must give the same; null if it does not. */
  readonly difference: string | null;
}

/** Which runs there are to do. For a grid that is fixed; for a search, it follows from the results so far. */
export interface Schedule {
  /** The most runs that it can come to. */
  readonly total: number;
  /**
   * Takes note of results and failures that it has not seen, in any order: what `runs` gives must not depend on the order. A
   * schedule without it does not learn, and no result is read for its sake.
   */
  learn?(results: readonly Outcome[], failed: readonly string[]): void;
  /**
   * The runs that can be performed now, those first that matter most. Runs that others perform, or that have ended, may be
   * among them. Asked again after `learn`; the sweep has ended when all of them have.
   */
  runs(): readonly RunConfig[];
  /** The ids of all runs that there are so far, those that have ended among them. Only a schedule that learns has it. */
  ids?(): readonly string[];
}

/** The schedule of a fixed list of runs. */
export function fixedSchedule(configs: readonly RunConfig[]): Schedule {
  return { total: configs.length, runs: () => configs };
}
