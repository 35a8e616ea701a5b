/** A job that this process has taken: it shows signs of life until the job ends here, so that no other worker takes it. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Job, Worker } from "bullmq";
import type { QueueServer } from "./server.ts";

/** The token under which this process holds jobs. */
const TOKEN = `${process.pid}-${Math.random().toString(36).slice(2)}`;

export class Held<T> {
  readonly job: Job<T>;
  /** Called when the server does not know that this process holds the job: it was another's turn, or the server was restarted. */
  onLost: () => Promise<void> = () => Promise.resolve();
  readonly #server: QueueServer;
  readonly #timer: NodeJS.Timeout;
  /** How far the work is, and what of that the server knows. */
  #progress = 0;
  #told = 0;

  private constructor(server: QueueServer, job: Job<T>) {
    this.job = job;
    this.#server = server;
    this.#timer = setInterval(() => void this.#renew(), server.lockMs / 3);
  }

  /** Takes a job; null if there is none now. `block`: waits for one, a second or so. */
  static async take<T>(server: QueueServer, worker: Worker, block: boolean): Promise<Held<T> | null> {
    const job = (await server.persist(() => worker.getNextJob(TOKEN, { block }))) as Job<T> | undefined;
    return job === undefined ? null : new Held(server, job);
  }

  /** Notes how far the work is; the next sign of life says it. */
  progress(step: number): void {
    this.#progress = step;
  }

  async #renew(): Promise<void> {
    const known = await this.job.extendLock(TOKEN, this.#server.lockMs).catch(() => 0);
    if (!known) return this.onLost().catch(() => undefined);
    if (this.#progress === this.#told) return;
    this.#told = this.#progress;
    await this.job.updateProgress(this.#told).catch(() => undefined);
  }

  complete(): Promise<void> {
    return this.#settle(() => this.job.moveToCompleted("done", TOKEN, false));
  }

  fail(message: string): Promise<void> {
    return this.#settle(() => this.job.moveToFailed(new Error(message), TOKEN, false));
  }

  /** For another worker to take at once. */
  giveBack(): Promise<void> {
    return this.#settle(() => this.job.moveToWait(TOKEN));
  }

  /** Tells the server how the job has ended. It may know the job no more: whoever misses its result then adds it again. */
  async #settle(work: () => Promise<unknown>): Promise<void> {
    clearInterval(this.#timer);
    await Promise.race([
      this.#server.persist(work).catch(() => undefined),
      sleep(this.#server.lockMs, undefined, { ref: false }),
    ]);
  }
}
