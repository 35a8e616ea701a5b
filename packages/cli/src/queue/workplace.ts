/**
 * A worker's day: looks for announced trainings and sweeps, checks that this machine has their version, base model and data, joins
 * those, and performs their jobs. Trainings take turns, and share one base model, which is loaded once; between them come sweeps.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { parseJsonObject } from "@tiedlora/core";
import type { BackendName } from "../device.ts";
import { findModel } from "../find-model.ts";
import { checkPath } from "../load.ts";
import { type Output, paint } from "../output.ts";
import { checkModelDigest, productVersion } from "./identity.ts";
import type { QueueServer } from "./server.ts";
import type { SweepAnnouncement } from "./sweep/announcement.ts";
import { type Reached, reachSweep, reachTeacher, serveSweep } from "./sweep/serve.ts";
import { names, type TrainingAnnouncement } from "./training/announcement.ts";
import { DiedError, TrainingProcess } from "./training/child.ts";
import { TrainingSeat } from "./training/seat.ts";

/** What a worker has been told of its machine. */
export interface Place {
  /** Where base model and data are; null where the training says. */
  readonly model?: string;
  readonly teacher?: string;
  readonly data?: string;
  /** What computes; where it is not given, what the training or the sweep names. */
  readonly backend?: BackendName;
  /** The seconds without work after which it ends. */
  readonly idle?: number;
  /** The processes at once in which runs of a sweep are performed. */
  readonly parallel?: number;
  /** The module that these processes run. Default: what performs runs. */
  readonly runModule?: string;
  readonly revectorize: boolean;
  readonly output: Output;
}

/** Where base model, teacher and data of a training are on this machine. */
interface Here {
  readonly directory: string;
  readonly teacher: string | null;
  readonly data: string;
}

type Announcement = TrainingAnnouncement | SweepAnnouncement;

/** Announcements are read again so often. */
const LOOK_MS = 1000;
/** With several trainings, none of which has a job, they are asked again so soon. */
const TURN_MS = 25;
/** A sweep without a run to hand out is left after so long, if there is other work. */
const LEAVE_MS = 2000;

/** What trainings must have in common to be worked for at the same time. */
const baseOf = ({ modelDigest, settings: { quantize, stream, backend } }: TrainingAnnouncement): string =>
  JSON.stringify([modelDigest, quantize ?? null, stream, backend]);

/** An announcement, with the backend that computes here; says so if that is another one. */
function computedHere(announcement: Announcement, { backend, output }: Place): Announcement {
  const named = announcement.kind === "sweep" ? announcement.backend : announcement.settings.backend;
  if (backend === undefined || backend === named) return announcement;
  output.info(
    `${paint("yellow", "note:")} ${announcement.kind} ${announcement.id} is on ${named}, and this worker is on ${backend}, which rounds ` +
      "differently: its share has other last digits",
  );
  if (announcement.kind === "sweep") return { ...announcement, backend };
  return { ...announcement, settings: { ...announcement.settings, backend } };
}

export class Workplace {
  readonly #server: QueueServer;
  readonly #place: Place;
  readonly #signal: AbortSignal;
  readonly #refused = new Map<string, string>();
  readonly #seats = new Map<string, TrainingSeat>();
  readonly #sweeps = new Map<string, Reached>();
  #process: { readonly base: string; readonly child: TrainingProcess } | null = null;
  #looked = -Infinity;
  #busy = performance.now();
  /** Whether it has ever joined something. */
  #joined = false;

  constructor(server: QueueServer, place: Place, signal: AbortSignal) {
    this.#server = server;
    this.#place = place;
    this.#signal = signal;
  }

  /** Works until it is interrupted, or has been idle for as long as it may. Throws if it is refused by all that there is. */
  async work(): Promise<void> {
    const { idle = Infinity } = this.#place;
    while (!this.#signal.aborted) {
      if (performance.now() - this.#looked > LOOK_MS) await this.#look();
      if ((await this.#takeTurns()) || (await this.#serveSweeps())) this.#busy = performance.now();
      else if (performance.now() - this.#busy > 1000 * idle) return;
    }
  }

  /** Gives each training one turn; whether any had a job. */
  async #takeTurns(): Promise<boolean> {
    const seats = [...this.#seats.values()];
    let worked = false;
    for (const seat of seats) {
      if (this.#signal.aborted) return worked;
      try {
        worked = (await seat.workOnce(seats.length === 1, this.#signal)) || worked;
      } catch (error) {
        if (!(error instanceof DiedError)) throw error;
        await this.#leaveAll();
        return true;
      }
    }
    if (!worked && this.#sweeps.size === 0) await sleep(seats.length === 0 ? LOOK_MS / 2 : TURN_MS);
    return worked;
  }

  /** Serves each sweep for as long as it has runs, or as there is nothing else; whether any had a run. */
  async #serveSweeps(): Promise<boolean> {
    let worked = false;
    for (const reached of this.#sweeps.values()) {
      if (this.#signal.aborted) return worked;
      const runs = await serveSweep(this.#server, reached, {
        ...this.#place,
        signal: this.#signal,
        leave: (quiet) => this.#leaveSweep(reached.announcement.id, quiet),
      });
      worked ||= runs > 0;
    }
    return worked;
  }

  /** Whether to leave a sweep that has had no run to hand out for so many milliseconds, in which nothing was performed either. */
  async #leaveSweep(id: string, quiet: number): Promise<boolean> {
    const announced = await this.#server.store.announced();
    if (!announced.has(id)) return true;
    const other = [...announced.keys()].some((one) => one !== id && !this.#refused.has(one));
    return quiet > Math.min(other ? LEAVE_MS : Infinity, 1000 * (this.#place.idle ?? Infinity));
  }

  /** Reads the announcements: leaves what is over, and joins what is new. */
  async #look(): Promise<void> {
    const announced = await this.#server.store.announced();
    this.#looked = performance.now();
    for (const [id, seat] of this.#seats) {
      if (announced.has(id)) continue;
      this.#seats.delete(id);
      await seat.leave();
      this.#place.output.info(`training ${id} is over: ${seat.done} of its micro-batches were computed here`);
    }
    for (const id of this.#sweeps.keys()) if (!announced.has(id)) this.#sweeps.delete(id);
    for (const [id, text] of announced) {
      if (this.#signal.aborted) return;
      const known = this.#seats.has(id) || this.#sweeps.has(id) || this.#refused.has(id);
      if (!known) await this.#consider(id, text);
    }
    const reasons = [...announced.keys()].map((id) => this.#refused.get(id));
    if (!this.#joined && reasons.length > 0 && reasons.every((reason) => reason !== undefined))
      throw new Error(`there is nothing that this worker can work for: ${reasons.join("; ")}`);
  }

  async #consider(id: string, text: string): Promise<void> {
    const { output } = this.#place;
    try {
      const announcement = computedHere(readAnnouncement(id, text), this.#place);
      if (announcement.kind === "sweep") await this.#joinSweep(announcement);
      else await this.#joinTraining(announcement);
    } catch (error) {
      if (this.#signal.aborted) return;
      const reason = `${id}: ${error instanceof Error ? error.message : String(error)}`;
      this.#refused.set(id, reason);
      output.info(`${paint("yellow", "note:")} refused ${reason}`);
    }
  }

  async #joinSweep(announcement: SweepAnnouncement): Promise<void> {
    const { id, host, name } = announcement;
    this.#sweeps.set(id, await reachSweep(announcement, this.#place));
    this.#joined = true;
    this.#busy = performance.now();
    this.#place.output.info(`joined sweep ${name} (${id}) of ${host}: ${announcement.model}`);
  }

  async #joinTraining(announcement: TrainingAnnouncement): Promise<void> {
    const base = baseOf(announcement);
    if (this.#seats.size > 0 && this.#process?.base !== base) return; // later, when these are over
    await this.#join(announcement, base, await this.#reach(announcement));
  }

  /** The base model and the data on this machine. Throws if they are not there, or are not those of the training. */
  async #reach(announcement: TrainingAnnouncement): Promise<Here> {
    const { output, model = announcement.model, data = announcement.data } = this.#place;
    const { directory } = await findModel(model, output);
    const announced = { model: announcement.model, digest: announcement.modelDigest };
    await checkModelDigest(directory, announced, `the base model in ${directory} is not that of the training`, "--model"); // prettier-ignore
    await checkPath("--data", data, "file or directory", "give the training's examples on this machine");
    return { directory, teacher: (await reachTeacher(announcement.teacher, this.#place)) ?? null, data };
  }

  async #join(announcement: TrainingAnnouncement, base: string, reached: Here): Promise<void> {
    const { id, host } = announcement;
    const { output, revectorize } = this.#place;
    const adapter = await this.#server.store.get(names.adapter(id));
    if (adapter === null) return; // it has just ended
    if (this.#process?.base !== base || !this.#process.child.alive) {
      this.#process?.child.end();
      this.#process = { base, child: new TrainingProcess() };
    }
    const { child } = this.#process;
    const stop = (): void => child.end();
    this.#signal.addEventListener("abort", stop, { once: true });
    try {
      await child.ask({
        type: "join",
        announcement,
        ...reached,
        adapter,
        revectorize,
        queue: this.#server.address,
      });
    } finally {
      this.#signal.removeEventListener("abort", stop);
    }
    this.#seats.set(id, await TrainingSeat.take(this.#server, announcement, child, output));
    this.#joined = true;
    this.#busy = performance.now();
    output.info(`joined training ${id} of ${host}: ${announcement.model}, ${announcement.data}`);
  }

  /** After the process has died: everything is loaded anew, with the next look. */
  async #leaveAll(): Promise<void> {
    for (const seat of this.#seats.values()) await seat.leave();
    this.#seats.clear();
    this.#process = null;
    this.#looked = -Infinity;
  }

  end(): void {
    this.#process?.child.end();
  }
}

/** Reads an announcement. Throws if it is of another version of this product. */
function readAnnouncement(id: string, text: string): Announcement {
  const announcement = parseJsonObject(text, `the announcement of ${id}`);
  const { version, kind } = announcement;
  if (version !== productVersion())
    throw new Error(
      `it is of version ${String(version)} of tiedlora, and this worker is of version ${productVersion()}; install the same version on both`,
    );
  if (kind !== "training" && kind !== "sweep") throw new Error("it is neither a training nor a sweep");
  return announcement as unknown as Announcement;
}
