/**
 * The side of a queue that trains: makes a job of each micro-batch, and collects the gradients that workers answer with. Results are
 * found under the micro-batch's name, so a job that is performed twice, or added again, counts once.
 */
import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { type Adapter, adapterFiles, type MicroBatch, type MicroGradients } from "tiedlora";
import type { Output } from "../../output.ts";
import type { TrainSettings } from "../../train-settings.ts";
import { productVersion } from "../identity.ts";
import { Posting } from "../posting.ts";
import type { QueueServer } from "../server.ts";
import {
  KEPT_SECONDS,
  type MicroBatchJob,
  names,
  settingsDigest,
  sharedSettings,
  type TrainingAnnouncement,
} from "./announcement.ts";
import { collectRarely } from "./collector.ts";
import { packFiles, trainedValues, unpackGradients } from "./values.ts";

export interface Training {
  readonly adapter: Adapter;
  readonly settings: TrainSettings;
  /** The base model's path, or its name on the hub with the commit. */
  readonly model: string;
  readonly modelDigest: string;
  readonly teacher?: TrainingAnnouncement["teacher"];
  readonly dataFingerprint: string;
  readonly output: Output;
  readonly signal: AbortSignal;
}

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
  #posting: Posting | null = null;

  constructor(server: QueueServer, training: Training) {
    const { settings, model, modelDigest, teacher, dataFingerprint } = training;
    this.#server = server;
    this.#training = training;
    this.#announcement = {
      kind: "training",
      id: randomBytes(6).toString("hex"),
      version: productVersion(),
      host: hostname(),
      model,
      modelDigest,
      ...(teacher && { teacher }),
      data: settings.data,
      dataFingerprint,
      settings: sharedSettings(settings),
      settingsDigest: settingsDigest(settings),
    };
  }

  get id(): string {
    return this.#announcement.id;
  }

  /** Announces the training to workers. */
  async open(): Promise<void> {
    const { id } = this.#announcement;
    const { output, signal, adapter } = this.#training;
    collectRarely(true);
    const files = await packFiles(adapterFiles(adapter)); // as it is at the beginning
    this.#posting = await Posting.open(this.#server, {
      id,
      queue: names.queue(id),
      announcement: this.#announcement,
      prepare: () => this.#server.store.set(names.adapter(id), files, KEPT_SECONDS),
      lookAfterMs: LOOK_AFTER_MS,
      output,
      signal,
    });
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
    this.#posting!.takeEnded(); // of the step before
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
    await this.#server.persist(() => this.#posting!.queue.addBulk(jobs));
  }

  /** Waits for all results; null if the training is interrupted. */
  async #collect(all: readonly Pending[], weights: Uint8Array): Promise<MicroGradients[] | null> {
    const found = new Map<Pending, MicroGradients>();
    const { signal } = this.#training;
    const began = Date.now();
    let why: "begun" | "woken" | "late" = "begun";
    while (!signal.aborted) {
      const ended = this.#posting!.takeEnded();
      const woken = this.#posting!.woken();
      const missing = all.filter((one) => !found.has(one));
      for (const one of missing) {
        if (why === "woken" && !ended.has(names.job(one.job))) continue;
        const bytes = await this.#server.store.get(one.resultKey);
        if (bytes !== null) found.set(one, unpackGradients(bytes));
      }
      if (found.size === all.length) return all.map((one) => found.get(one)!);
      if (why === "late") await this.#lookAfter(missing.filter((one) => !found.has(one)), weights); // prettier-ignore
      if (found.size === 0 && Date.now() - began > PATIENCE_MS)
        await this.#posting!.sayThatItWaits(
          "joined",
          async () => (await this.#posting!.queue.getWorkersCount()) === 0,
        );
      why = await woken;
    }
    return null;
  }

  /** Adds jobs again that the server has lost. Throws if one has failed for good. */
  async #lookAfter(pending: readonly Pending[], weights: Uint8Array): Promise<void> {
    const lost: Pending[] = [];
    for (const one of pending) {
      const job = await this.#server.persist(() => this.#posting!.queue.getJob(names.job(one.job)));
      if (job === undefined) lost.push(one);
      else if (await this.#server.persist(() => job.isFailed()))
        throw new Error(
          `micro-batch ${one.job.place + 1} of step ${one.job.step + 1} failed on ${ATTEMPTS} attempts: ${job.failedReason}`,
        );
    }
    if (lost.length === 0) return;
    await this.#posting!.announce();
    await this.#give(lost, weights);
  }

  /** Withdraws the training: its workers then leave it. */
  async close(): Promise<void> {
    const { store } = this.#server;
    collectRarely(false);
    await this.#posting?.close(async () => {
      await store.delete([names.adapter(this.id)]);
      await this.#posting!.queue.obliterate({ force: true });
    });
  }
}
