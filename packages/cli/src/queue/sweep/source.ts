/** The runs of a queue's sweep, for a worker's pool of processes; the worker may have base model and data in other places. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Worker } from "bullmq";
import { type ClaimedRun, differenceOf, type Outcome, type Publication, type RunConfig, runId, type RunSource, wholeId } from "@tiedlora/experiments"; // prettier-ignore
import { writeFileAtomic } from "@tiedlora/core/node";
import type { QueueServer } from "../server.ts";
import { Held } from "../held.ts";
import {
  configOf,
  KEPT_SECONDS,
  names,
  type RunEnding,
  type RunJob,
  type SweepAnnouncement,
} from "./announcement.ts";

export interface Serving {
  readonly announcement: SweepAnnouncement;
  /** The config with which a run is performed here. */
  readonly here: (config: RunConfig) => RunConfig;
  /** Asked when there is no run to hand out: whether to leave. `running`: how many are being performed here. */
  readonly leave: (running: number) => Promise<boolean>;
  /** Called for each run that has ended here. */
  readonly say: (id: string, what: string) => void;
}

export class QueueRunSource implements RunSource {
  /** A worker that is lost loses no more than the runs that it performs. */
  readonly publishesAtOnce = 1;
  readonly #server: QueueServer;
  readonly #worker: Worker;
  readonly #serving: Serving;
  /** The folder of saved states, made when it is needed. */
  #folder: Promise<string> | null = null;
  #claimedRuns = 0;
  #running = 0;
  #left = false;
  /** Lanes ask one after another. */
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(server: QueueServer, worker: Worker, serving: Serving) {
    this.#server = server;
    this.#worker = worker;
    this.#serving = serving;
  }

  static async open(server: QueueServer, serving: Serving): Promise<QueueRunSource> {
    return new QueueRunSource(server, await server.worker(names.queue(serving.announcement.id)), serving);
  }

  next(signal: AbortSignal): Promise<ClaimedRun | null> {
    const result = this.#turn.then(() => this.#take(signal));
    this.#turn = result.catch(() => undefined);
    return result;
  }

  async #take(signal: AbortSignal): Promise<ClaimedRun | null> {
    while (!signal.aborted && !this.#left) {
      const held = await Held.take<RunJob>(this.#server, this.#worker, true);
      if (held !== null) return this.#claimed(held);
      if (await this.#serving.leave(this.#running)) this.#left = true;
    }
    return null;
  }

  async #claimed(held: Held<RunJob>): Promise<ClaimedRun> {
    const { announcement, here, say } = this.#serving;
    const config = configOf(held.job.data);
    const id = runId(config);
    const began = performance.now();
    this.#running++;
    const lost = new AbortController();
    const keys = {
      ending: names.ending(announcement.id, id),
      saved: names.saved(announcement.id, wholeId(config)),
    };
    const { store } = this.#server;
    held.onLost = async () => {
      if ((await store.get(keys.ending)) !== null) lost.abort(); // another worker has ended it
    };
    const folder = await (this.#folder ??= mkdtemp(join(tmpdir(), "tiedlora-worker-")));
    // each claim has a file of its own: what goes on with a run may be taken before the file of its beginning is removed
    const checkpoint = join(folder, `${wholeId(config)}.${++this.#claimedRuns}.safetensors`);
    const before = await store.get(keys.saved);
    if (before !== null) await writeFileAtomic(checkpoint, before);
    let saving: Promise<void> = Promise.resolve();
    const save = async (): Promise<void> => {
      const bytes = await readFile(checkpoint).catch(() => null);
      if (bytes !== null) await store.set(keys.saved, bytes, KEPT_SECONDS);
    };
    const end = async (ending: RunEnding): Promise<Publication> => {
      await saving;
      const other = await store.get(keys.ending);
      const first = other === null;
      if (config.until !== undefined) await save();
      if (first) await store.set(keys.ending, Buffer.from(JSON.stringify(ending)), KEPT_SECONDS);
      await held.complete();
      await this.#over(checkpoint);
      const seconds = `${((performance.now() - began) / 1000).toFixed(1)} s`;
      say(id, "failed" in ending ? `failed: ${ending.failed}` : first ? `done (${seconds})` : `done, but another worker was faster`); // prettier-ignore
      const difference = other === null ? null : differenceFrom(other, ending);
      if (difference !== null) say(id, difference);
      return { counts: first, difference };
    };
    return {
      config: here(config),
      checkpoint,
      lost: lost.signal,
      onSaved: () => void (saving = saving.then(save).catch(() => undefined)),
      onStep: (step) => held.progress(step),
      publish: (result: Outcome) =>
        end({ outcome: { ...result, id, config, duration: (performance.now() - began) / 1000 } }),
      fail: async (message) => (await end({ failed: message })).counts,
      release: async () => {
        await saving;
        await save();
        await held.giveBack();
        await this.#over(checkpoint);
        say(id, "given back");
      },
    };
  }

  async #over(checkpoint: string): Promise<void> {
    this.#running--;
    await rm(checkpoint, { force: true });
  }

  async close(): Promise<void> {
    await this.#server.closeOne(this.#worker);
    if (this.#folder !== null) await rm(await this.#folder, { recursive: true, force: true });
  }
}

/** How a result differs from the one that counts, although both are of the same kind of device; null if it does not. */
function differenceFrom(stored: Uint8Array, own: RunEnding): string | null {
  const other = JSON.parse(Buffer.from(stored).toString("utf8")) as RunEnding;
  if (!("outcome" in other && "outcome" in own)) return null;
  const difference = differenceOf(other.outcome, own.outcome);
  return difference === null
    ? null
    : `has two results, both of ${own.outcome.device}: ${difference}; the first one counts`;
}
