/** A worker's part in a sweep: checks that this machine has what it needs, and performs its runs in a pool of processes. */
import { availableParallelism } from "node:os";
import { basename, join } from "node:path";
import type { RunConfig } from "@tiedlora/experiments";
import { embeddedBase, runPool } from "@tiedlora/experiments/node";
import { findModel } from "../../find-model.ts";
import { withDevice } from "../../device.ts";
import { checkPath } from "../../load.ts";
import type { Output } from "../../output.ts";
import { decideStreaming, sweepStep } from "../../streaming.ts";
import { checkModelDigest, dataDigest, short } from "../identity.ts";
import type { QueueServer } from "../server.ts";
import type { SweepAnnouncement } from "./announcement.ts";
import { QueueRunSource } from "./source.ts";

/** A sweep whose base model and data are on this machine. */
export interface Reached {
  readonly announcement: SweepAnnouncement;
  /** The directory of the base model. */
  readonly directory: string;
  /** The config with which a run is performed here. */
  readonly here: (config: RunConfig) => RunConfig;
}

interface Where {
  readonly model?: string;
  readonly teacher?: string;
  readonly data?: string;
  readonly output: Output;
}

/** Finds base model and data on this machine. Throws if they are not there, or are not those of the sweep. */
export async function reachSweep(announcement: SweepAnnouncement, where: Where): Promise<Reached> {
  const embedded = embeddedBase(announcement.model);
  const model = embedded === null ? (where.model ?? announcement.model) : announcement.model;
  const { directory } = await findModel(embedded ?? model, where.output);
  const announced = { model: announcement.model, digest: announcement.modelDigest };
  await checkModelDigest(directory, announced, `the base model in ${directory} is not that of the sweep`, "--model"); // prettier-ignore
  const teacher = await reachTeacher(announcement.teacher, where);
  const dataHere = (path: string): string =>
    where.data === undefined ? path : join(where.data, basename(path));
  for (const { path, digest: wanted } of announcement.data) {
    const folder = dataHere(path);
    await checkPath("--data", folder, "directory", "give the folder of the sweep's data on this machine");
    const found = await dataDigest(folder);
    if (found !== wanted)
      throw new Error(
        `the files in ${folder} are not those of the sweep: their SHA-256 is ${short(found)}…, and that of ${path} is ${short(wanted)}…; ` +
          "give the same data with --data",
      );
  }
  await withDevice(announcement.backend, () => Promise.resolve()); // or says why there is none
  // The sweep's file may have relative paths; what was announced are absolute ones.
  const absolute = (path: string): string =>
    announcement.data.find((one) => basename(one.path) === basename(path))?.path ?? path;
  const here = (config: RunConfig): RunConfig => ({
    ...config,
    model,
    ...(config.teacher !== undefined && { teacher }),
    data: config.data === null ? null : dataHere(absolute(config.data)),
  });
  return { announcement, directory, here };
}

/** The name or path of a teacher on this machine; undefined if there is none. Throws unless it is the one that was announced. */
export async function reachTeacher(
  announced: { readonly model: string; readonly digest: string } | undefined,
  where: Pick<Where, "teacher" | "output">,
): Promise<string | undefined> {
  if (announced === undefined) return undefined;
  const embedded = embeddedBase(announced.model);
  const teacher = embedded ?? where.teacher ?? announced.model;
  const { directory } = await findModel(teacher, where.output, { setting: "--teacher" });
  await checkModelDigest(directory, announced, `the model in ${directory} is not the one to learn from`, "--teacher"); // prettier-ignore
  return embedded === null ? directory : announced.model;
}

interface ServeOptions {
  readonly parallel?: number;
  readonly runModule?: string;
  readonly revectorize: boolean;
  readonly output: Output;
  readonly signal: AbortSignal;
  /** Whether to leave, after so many milliseconds without a run. */
  readonly leave: (quiet: number) => Promise<boolean>;
}

/** Performs runs until the sweep is over or left; the number of those that ended here. */
export async function serveSweep(
  server: QueueServer,
  { announcement, directory, here }: Reached,
  { leave, output, signal, runModule, ...options }: ServeOptions,
): Promise<number> {
  const { backend, name } = announcement;
  const cores = availableParallelism();
  const parallel = options.parallel ?? (backend === "webgpu" ? 1 : cores);
  let [runs, since] = [0, performance.now()];
  const source = await QueueRunSource.open(server, {
    announcement,
    here,
    leave: (running) => {
      if (running > 0) since = performance.now();
      return leave(performance.now() - since);
    },
    say: (id, what) => {
      runs++;
      output.info(`sweep ${name}: ${id} ${what}`);
    },
  });
  try {
    const threads = Math.max(1, Math.floor(cores / parallel));
    const revectorize = backend === "cpu" && options.revectorize;
    const { quantize } = announcement;
    const stream = await withDevice(
      backend,
      (device) =>
      decideStreaming(directory, device, { quantize, step: sweepStep(announcement.largest.map(here), directory), processes: parallel, output }), // prettier-ignore
    );
    const worker = runModule === undefined ? {} : { worker: runModule };
    await runPool(source, { parallel, backend, threads, revectorize, stream, signal, ...worker });
  } finally {
    await source.close();
  }
  return runs;
}
