/**
 * The side of a queue that trains: makes a job of each micro-batch, and collects the gradients that workers answer with. Results are
 * found under the micro-batch's name, so a job that is performed twice, or added again, counts once.
 */
import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import type { Queue, QueueEvents } from "bullmq";
import { type Adapter, adapterFiles, type MicroBatch, type MicroGradients } from "tiedlora";
import { type Output, paint } from "../../output.ts";
import type { TrainSettings } from "../../train-settings.ts";
import { productVersion } from "../identity.ts";
import type { QueueServer } from "../server.ts";
import { ANNOUNCED } from "../store.ts";
import {
  KEPT_SECONDS,
  type MicroBatchJob,
  names,
  sharedSettings,
  type TrainingAnnouncement,
} from "./announcement.ts";
import { packFiles, trainedValues, unpackGradients } from "./values.ts";

export interface Training {
  readonly adapter: Adapter;
  readonly settings: TrainSettings;
  /** The base model's path, or its name on the hub with the commit. */
  readonly model: string;
  readonly modelDigest: string;
  readonly dataFingerprint: string;
  readonly output: Output;
  readonly signal: AbortSignal;
}

/** An announcement is renewed so often, and gone if its training has not renewed it for so long. */
const ANNOUNCE_MS = 30_000;
const ANNOUNCED_SECONDS = 300;
/** Jobs without a result are looked after so often, in case that an event, or what the server had in memory, was lost. */
const LOOK_AFTER_MS = 1000;
/** A training that has waited so long for an answer says so. */
const PATIENCE_MS = 10_000;
/** How often a job is tried. */
const ATTEMPTS = 3;

/** A micro-batch without a result. */
interface Pending {
  readonly job: MicroBatchJob;
  readonly resultKey: string;
}

export class TrainingQueue {
  readonly #server: QueueServer;
  readonly #training: Training;
  readonly #announcement: TrainingAnnouncement;
  #queue: Queue | null = null;
  #events: QueueEvents | null = null;
  #timer: NodeJS.Timeout | undefined;
  /** The adapter's files, as it was at the beginning. */
  #files: Uint8Array = new Uint8Array();
  /** The jobs that have ended, as events say. */
  readonly #ended = new Set<string>();
  /** Ends the present wait. */
  #wake: () => void = () => undefined;
  #toldToWait = false;

  constructor(server: QueueServer, training: Training) {
    const { settings, model, modelDigest, dataFingerprint } = training;
    this.#server = server;
    this.#training = training;
    this.#announcement = {
      kind: "training",
      id: randomBytes(6).toString("hex"),
      version: productVersion(),
      host: hostname(),
      model,
      modelDigest,
      data: settings.data,
      dataFingerprint,
      settings: sharedSettings(settings),
    };
  }

  get id(): string {
    return this.#announcement.id;
  }

  /** Announces the training to workers. */
  async open(): Promise<void> {
    const { id } = this.#announcement;
    this.#queue = await this.#server.queue(names.queue(id));
    this.#events = await this.#server.events(names.queue(id));
    const ended = ({ jobId }: { readonly jobId: string }): void => {
      this.#ended.add(jobId);
      this.#wake();
    };
    this.#events.on("completed", ended).on("failed", ended);
    this.#training.signal.addEventListener("abort", () => this.#wake());
    this.#files = await packFiles(adapterFiles(this.#training.adapter));
    await this.#announce();
    this.#timer = setInterval(() => void this.#announce().catch(() => undefined), ANNOUNCE_MS);
  }

  async #announce(): Promise<void> {
    const { store } = this.#server;
    const { id } = this.#announcement;
    await store.set(names.adapter(id), this.#files, KEPT_SECONDS);
    await store.set(ANNOUNCED + id, Buffer.from(JSON.stringify(this.#announcement)), ANNOUNCED_SECONDS);
  }

  /** The gradients of a step's micro-batches: a GradientSource. */
  readonly gradients = async (batches: readonly MicroBatch[]): Promise<readonly MicroGradients[] | null> => {
    const { id } = this.#announcement;
    const { step } = batches[0]!;
    const weights = await trainedValues(this.#training.adapter);
    const all = batches.map(({ index, factor }, place): Pending => {
      const job = { step, place, index, factor };
      return { job, resultKey: names.gradients(id, job) };
    });
    this.#ended.clear();
    await this.#give(all, weights);
    const found = await this.#collect(all, weights);
    await this.#server.store.delete([names.weights(id, step), ...all.map(({ resultKey }) => resultKey)]);
    return found;
  };

  async #give(pending: readonly Pending[], weights: Uint8Array): Promise<void> {
    const { store } = this.#server;
    await store.set(names.weights(this.#announcement.id, pending[0]!.job.step), weights, KEPT_SECONDS);
    const jobs = pending.map(({ job }) => ({
      name: "micro-batch",
      data: job,
      opts: { jobId: names.job(job), attempts: ATTEMPTS, removeOnComplete: true },
    }));
    await this.#server.persist(() => this.#queue!.addBulk(jobs));
  }

  /** Waits for all results; null if the training is interrupted. */
  async #collect(all: readonly Pending[], weights: Uint8Array): Promise<MicroGradients[] | null> {
    const found = new Map<Pending, MicroGradients>();
    const { signal } = this.#training;
    const began = Date.now();
    let why: "begun" | "woken" | "late" = "begun";
    while (!signal.aborted) {
      const woken = this.#woken();
      const missing = all.filter((one) => !found.has(one));
      for (const one of missing) {
        if (why === "woken" && !this.#ended.delete(names.job(one.job))) continue;
        const bytes = await this.#server.store.get(one.resultKey);
        if (bytes !== null) found.set(one, unpackGradients(bytes));
      }
      if (found.size === all.length) return all.map((one) => found.get(one)!);
      if (why === "late") await this.#lookAfter(missing.filter((one) => !found.has(one)), weights); // prettier-ignore
      if (found.size === 0) await this.#sayThatItWaits(Date.now() - began);
      why = await woken;
    }
    return null;
  }

  /** Resolves when a job has ended, or after a while. */
  #woken(): Promise<"woken" | "late"> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve("late"), LOOK_AFTER_MS);
      this.#wake = () => {
        clearTimeout(timer);
        resolve("woken");
      };
    });
  }

  /** Adds jobs again that the server has lost. Throws if one has failed for good. */
  async #lookAfter(pending: readonly Pending[], weights: Uint8Array): Promise<void> {
    const lost: Pending[] = [];
    for (const one of pending) {
      const job = await this.#server.persist(() => this.#queue!.getJob(names.job(one.job)));
      if (job === undefined) lost.push(one);
      else if (await this.#server.persist(() => job.isFailed()))
        throw new Error(
          `micro-batch ${one.job.place + 1} of step ${one.job.step + 1} failed on ${ATTEMPTS} attempts: ${job.failedReason}`,
        );
    }
    if (lost.length === 0) return;
    await this.#announce();
    await this.#give(lost, weights);
  }

  async #sayThatItWaits(waited: number): Promise<void> {
    if (waited < PATIENCE_MS || this.#toldToWait) return;
    const workers = await this.#queue!.getWorkersCount().catch(() => null);
    if (workers !== 0) return;
    this.#toldToWait = true;
    this.#training.output.info(
      `${paint("yellow", "note:")} no worker has joined yet: start some with tiedlora worker --queue ${this.#server.shown} (with the password)`,
    );
  }

  /** Withdraws the training: its workers then leave it. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    const { id } = this.#announcement;
    const work = async (): Promise<void> => {
      await this.#server.store.delete([ANNOUNCED + id, names.adapter(id)]);
      await this.#queue?.obliterate({ force: true });
    };
    await Promise.race([work().catch(() => undefined), new Promise((resolve) => setTimeout(resolve, 3000).unref())]); // prettier-ignore
  }
}
