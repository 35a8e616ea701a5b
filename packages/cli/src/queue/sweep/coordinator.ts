/**
 * The side of a queue that has the sweep's file and the folder of results: makes a job of each run, and saves what workers find. A
 * run's result is found under the run's id, so that a run that is performed twice, or added again, counts once.
 */
import type { Queue } from "bullmq";
import {
  type Outcome,
  type RunConfig,
  type RunFailure,
  runId,
  type Schedule,
  wholeId,
} from "@tiedlora/experiments";
import type { RunStore } from "@tiedlora/experiments/node";
import { type Output, paint } from "../../output.ts";
import type { QueueServer } from "../server.ts";
import { ANNOUNCED } from "../store.ts";
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

/** An announcement is renewed so often, and gone if its sweep has not renewed it for so long. */
const ANNOUNCE_MS = 30_000;
const ANNOUNCED_SECONDS = 300;
/** Runs without an ending are looked after so often, in case that an event, or what the server had in memory, was lost. */
const LOOK_AFTER_MS = 5000;
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
  #queue: Queue | null = null;
  #timer: NodeJS.Timeout | undefined;
  /** The runs that have ended, and those that are on the queue. */
  readonly #over = new Set<string>();
  readonly #given = new Map<string, RunConfig>();
  /** The runs that have ended as events say. */
  readonly #ended = new Set<string>();
  #wake: () => void = () => undefined;
  #toldToWait = false;

  constructor(server: QueueServer, sweep: QueuedSweep) {
    this.#server = server;
    this.#sweep = sweep;
  }

  async run(): Promise<void> {
    const { announcement, signal, schedule, store } = this.#sweep;
    const name = names.queue(announcement.id);
    this.#queue = await this.#server.queue(name);
    const events = await this.#server.events(name);
    const ended = ({ jobId }: { readonly jobId: string }): void => {
      this.#ended.add(jobId);
      this.#wake();
    };
    events.on("completed", ended).on("failed", ended);
    signal.addEventListener("abort", () => this.#wake());
    const before = await store.outcomes();
    for (const { id } of before) this.#over.add(id);
    schedule.learn?.(before, []);
    await this.#announce();
    this.#timer = setInterval(() => void this.#announce().catch(() => undefined), ANNOUNCE_MS);
    await this.#untilOver(signal);
  }

  async #announce(): Promise<void> {
    const { announcement } = this.#sweep;
    await this.#server.store.set(ANNOUNCED + announcement.id, Buffer.from(JSON.stringify(announcement)), ANNOUNCED_SECONDS); // prettier-ignore
  }

  async #untilOver(signal: AbortSignal): Promise<void> {
    const began = Date.now();
    let why: "begun" | "woken" | "late" = "begun";
    while (!signal.aborted) {
      const woken = this.#woken();
      const fresh = this.#fresh();
      if (why === "begun") for (const config of fresh) await this.#collect(runId(config)); // from before an interruption
      await this.#add(fresh.filter((config) => this.#given.has(runId(config))));
      const ended = [...this.#ended];
      this.#ended.clear();
      let collected = 0;
      for (const id of ended) if (await this.#collect(id)) collected++;
      if (why === "late") collected += await this.#lookAfter();
      why = "woken";
      if (collected > 0) continue; // there may be new runs at once
      if (this.#given.size === 0) return;
      await this.#sayThatItWaits(Date.now() - began);
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
    await this.#server.persist(() => this.#queue!.addBulk(jobs));
  }

  /** Saves the ending of a run, if it has one. */
  async #collect(id: string): Promise<boolean> {
    const config = this.#given.get(id);
    const key = names.ending(this.#sweep.announcement.id, id);
    const bytes = await this.#server.store.get(key);
    if (bytes === null) return false;
    if (config !== undefined) {
      const ending = JSON.parse(Buffer.from(bytes).toString("utf8")) as RunEnding;
      if ("failed" in ending) await this.#fail(config, ending.failed);
      else await this.#finish(ending.outcome);
    }
    const saved = config === undefined || config.until !== undefined ? [] : [names.saved(this.#sweep.announcement.id, wholeId(config))]; // prettier-ignore
    await this.#server.store.delete([key, ...saved]);
    return config !== undefined;
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
    const counts = await this.#server.persist(() => this.#queue!.getJobCounts("wait", "active", "failed"));
    if (counts["failed"] === 0 && counts["wait"]! + counts["active"]! >= this.#given.size) return 0;
    const lost: RunConfig[] = [];
    let collected = 0;
    for (const [id, config] of this.#given) {
      const job = await this.#server.persist(() => this.#queue!.getJob(id));
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

  #woken(): Promise<"woken" | "late"> {
    return new Promise((resolve) => {
      if (this.#ended.size > 0) return resolve("woken");
      const timer = setTimeout(() => resolve("late"), LOOK_AFTER_MS);
      this.#wake = () => {
        clearTimeout(timer);
        resolve("woken");
      };
    });
  }

  async #sayThatItWaits(waited: number): Promise<void> {
    if (waited < PATIENCE_MS || this.#toldToWait) return;
    const active = await this.#queue!.getActiveCount().catch(() => null);
    if (active !== 0) return;
    this.#toldToWait = true;
    this.#sweep.output.info(
      `${paint("yellow", "note:")} no worker has taken a run yet: start some with tiedlora worker --queue ${this.#server.shown} (with the password)`,
    );
  }

  /** Withdraws the sweep. Workers finish the runs that they have in hand; of those that wait, nothing is left. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    const { announcement } = this.#sweep;
    const work = async (): Promise<void> => {
      await this.#server.store.delete([ANNOUNCED + announcement.id]);
      if (this.#given.size === 0) await this.#queue?.obliterate({ force: true });
      else await this.#queue?.drain();
    };
    await Promise.race([work().catch(() => undefined), new Promise((resolve) => setTimeout(resolve, 3000).unref())]); // prettier-ignore
  }
}
