/** A worker's part in one training: takes micro-batches from its queue, and answers with their gradients. */
import type { Worker } from "bullmq";
import type { Output } from "../../output.ts";
import { Held } from "../held.ts";
import type { QueueServer } from "../server.ts";
import { type MicroBatchJob, names, type TrainingAnnouncement } from "./announcement.ts";
import { DiedError, type TrainingProcess } from "./child.ts";

export class TrainingSeat {
  readonly announcement: TrainingAnnouncement;
  readonly #server: QueueServer;
  readonly #worker: Worker;
  readonly #process: TrainingProcess;
  readonly #output: Output;
  #done = 0;

  private constructor(
    server: QueueServer,
    announcement: TrainingAnnouncement,
    made: { readonly worker: Worker; readonly process: TrainingProcess; readonly output: Output },
  ) {
    // prettier-ignore
    this.announcement = announcement;
    this.#server = server;
    this.#worker = made.worker;
    this.#process = made.process;
    this.#output = made.output;
  }

  static async take(
    server: QueueServer,
    announcement: TrainingAnnouncement,
    process: TrainingProcess,
    output: Output,
  ): Promise<TrainingSeat> {
    const worker = await server.worker(names.queue(announcement.id));
    return new TrainingSeat(server, announcement, { worker, process, output });
  }

  /** The number of micro-batches that were computed here. */
  get done(): number {
    return this.#done;
  }

  /** Takes a job and performs it; false if there is none now. `block`: wait for one, a second or so. */
  async workOnce(block: boolean, signal: AbortSignal): Promise<boolean> {
    const held = await Held.take<MicroBatchJob>(this.#server, this.#worker, block);
    if (held === null) return false;
    const stop = (): void => this.#process.end();
    signal.addEventListener("abort", stop);
    try {
      await this.#perform(held, signal);
    } finally {
      signal.removeEventListener("abort", stop);
    }
    return true;
  }

  async #perform(held: Held<MicroBatchJob>, signal: AbortSignal): Promise<void> {
    const { id } = this.announcement;
    const { step, place, index, factor } = held.job.data;
    const began = performance.now();
    try {
      const stored = await this.#process.ask({ type: "work", id, job: { step, place, index, factor } });
      await held.complete();
      if (!stored) return;
      this.#done++;
      this.#output.info(`training ${id}: step ${step + 1}, micro-batch ${place + 1} (${seconds(began)})`);
    } catch (error) {
      if (signal.aborted) return await held.giveBack();
      const message = error instanceof Error ? error.message : String(error);
      this.#output.info(`training ${id}: step ${step + 1}, micro-batch ${place + 1} failed: ${message}`);
      await held.fail(message);
      if (error instanceof DiedError) throw error;
    }
  }

  async leave(): Promise<void> {
    if (this.#process.alive)
      await this.#process.ask({ type: "leave", id: this.announcement.id }).catch(() => undefined);
    await this.#server.closeOne(this.#worker);
  }
}

const seconds = (began: number): string => `${((performance.now() - began) / 1000).toFixed(2)} s`;
