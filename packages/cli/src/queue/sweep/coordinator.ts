/**
 * The side of a queue that has the sweep's file and the folder of results: makes a job of each run, and saves what workers find. A
 * run's result is found under the run's id, so that a run that is performed twice, or added again, counts once.
 */
import {
  type Outcome,
  type RunConfig,
  type RunFailure,
  runId,
  type Schedule,
  wholeId,
} from "@tiedlora/experiments";
import type { RunStore } from "@tiedlora/experiments/node";
import type { Output } from "../../output.ts";
import { Posting } from "../posting.ts";
import type { QueueServer } from "../server.ts";
import { names, type RunEnding, type RunJob, type SweepAnnouncement } from "./announcement.ts";

export interface QueuedSweep {
  readonly schedule: Schedule;
  readonly store: RunStore;
  readonly announcement: SweepAnnouncement;
  readonly output: Output;
  readonly signal: AbortSignal;
  readonly onDone: (outcome: Outcome) => void;
  readonly onFailed: (failure: RunFailure) => void;
}

/** Runs without an ending are looked after so often, in case that an event, or what the server had in memory, was lost. */
const LOOK_AFTER_MS = 5000;
/** A result that was saved stays on the server so long, for a worker that performed the run, too, to compare its own with it. */
const COLLECTED_SECONDS = 600;
/** A sweep that has waited so long for a worker says so. */
const PATIENCE_MS = 15_000;

/** Hands the runs of a sweep to workers until all have ended, or until `signal`; what workers have in hand then is kept. */
export async function sweepOnQueue(server: QueueServer, sweep: QueuedSweep): Promise<void> {
  const coordinator = new SweepQueue(server, sweep);
  try {
    await coordinator.run();
  } finally {
    await coordinator.close();
  }
}

class SweepQueue {
  readonly #server: QueueServer;
  readonly #sweep: QueuedSweep;
  #posting: Posting | null = null;
  /** The runs that have ended, and those that are on the queue. */
  readonly #over = new Set<string>();
  readonly #given = new Map<string, RunConfig>();
  /** The keys of results that were collected, and are kept to compare others with them. */
  readonly #collected: string[] = [];

  constructor(server: QueueServer, sweep: QueuedSweep) {
    this.#server = server;
    this.#sweep = sweep;
  }

  async run(): Promise<void> {
    const { announcement, signal, schedule, store, output } = this.#sweep;
    const before = await store.outcomes();
    for (const { id } of before) this.#over.add(id);
    schedule.learn?.(before, []);
    const { id } = announcement;
    const queue = names.queue(id);
    this.#posting = await Posting.open(this.#server, { id, queue, announcement, lookAfterMs: LOOK_AFTER_MS, output, signal }); // prettier-ignore
    await this.#untilOver(signal);
  }

  async #untilOver(signal: AbortSignal): Promise<void> {
    const began = Date.now();
    let why: "begun" | "woken" | "late" = "begun";
    while (!signal.aborted) {
      const woken = this.#posting!.woken();
      const fresh = this.#fresh();
      if (why === "begun") for (const config of fresh) await this.#collect(runId(config)); // from before an interruption
      await this.#add(fresh.filter((config) => this.#given.has(runId(config))));
      let collected = 0;
      for (const id of this.#posting!.takeEnded()) if (await this.#collect(id)) collected++;
      if (why === "late") collected += await this.#lookAfter();
      why = "woken";
      if (collected > 0) continue; // there may be new runs at once
      if (this.#given.size === 0) return;
      if (Date.now() - began > PATIENCE_MS)
        await this.#posting!.sayThatItWaits(
          "taken a run",
          async () => (await this.#posting!.queue.getActiveCount()) === 0,
        );
      why = await woken;
    }
  }

  /** The runs that can be performed now and have not been given to the queue. */
  #fresh(): RunConfig[] {
    const fresh = this.#sweep.schedule.runs().filter((config) => {
      const id = runId(config);
      return !this.#over.has(id) && !this.#given.has(id);
    });
    for (const config of fresh) this.#given.set(runId(config), config);
    return fresh;
  }

  async #add(configs: readonly RunConfig[]): Promise<void> {
    if (configs.length === 0) return;
    const jobs = configs.map((config) => ({
      name: "run",
      data: { config: JSON.stringify(config) } satisfies RunJob,
      opts: { jobId: runId(config), removeOnComplete: true },
    }));
    await this.#server.persist(() => this.#posting!.queue.addBulk(jobs));
  }

  /** Saves the ending of a run, if it has one. */
  async #collect(id: string): Promise<boolean> {
    const config = this.#given.get(id);
    if (config === undefined) return false; // it is known already
    const { store } = this.#server;
    const sweep = this.#sweep.announcement.id;
    const key = names.ending(sweep, id);
    const bytes = await store.get(key);
    if (bytes === null) return false;
    const ending = JSON.parse(Buffer.from(bytes).toString("utf8")) as RunEnding;
    if ("failed" in ending) {
      await this.#fail(config, ending.failed);
      await store.delete([key]); // it may be tried again
    } else {
      await this.#finish(ending.outcome);
      await store.set(key, bytes, COLLECTED_SECONDS);
      this.#collected.push(key);
    }
    if (config.until === undefined) await store.delete([names.saved(sweep, wholeId(config))]);
    return true;
  }

  async #finish(outcome: Outcome): Promise<void> {
    const { store, schedule, onDone } = this.#sweep;
    this.#end(outcome.id);
    await store.finish(outcome);
    schedule.learn?.([outcome], []);
    onDone(outcome);
  }

  async #fail(config: RunConfig, message: string): Promise<void> {
    const { store, schedule, onFailed } = this.#sweep;
    const failure = { id: runId(config), config, message };
    this.#end(failure.id);
    await store.fail(failure);
    schedule.learn?.([], [failure.id]);
    onFailed(failure);
  }

  #end(id: string): void {
    this.#given.delete(id);
    this.#over.add(id);
  }

  /**
   * Adds runs again that the server has lost, gives up those whose workers have died again and again, and collects those whose end
   * was missed; the number of the latter.
   */
  async #lookAfter(): Promise<number> {
    const counts = await this.#server.persist(() =>
      this.#posting!.queue.getJobCounts("wait", "active", "failed"),
    );
    if (counts["failed"] === 0 && counts["wait"]! + counts["active"]! >= this.#given.size) return 0;
    const lost: RunConfig[] = [];
    let collected = 0;
    for (const [id, config] of this.#given) {
      const job = await this.#server.persist(() => this.#posting!.queue.getJob(id));
      if (job === undefined) {
        if (await this.#collect(id)) collected++;
        else lost.push(config);
      } else if (await this.#server.persist(() => job.isFailed())) {
        await job.remove().catch(() => undefined);
        await this.#fail(config, `its workers died: ${job.failedReason}`);
      }
    }
    await this.#add(lost);
    return collected;
  }

  /** Withdraws the sweep. Workers finish the runs that they have in hand; of those that wait, nothing is left. */
  async close(): Promise<void> {
    const { store } = this.#server;
    await this.#posting?.close(async () => {
      const { queue } = this.#posting!;
      if (this.#given.size === 0) await queue.obliterate({ force: true });
      else await queue.drain();
      await store.delete(this.#collected);
    });
  }
}
