/** `tiedlora sweep --queue`: the runs of a sweep's file on workers that share nothing with this machine. */
import { createHash } from "node:crypto";
import { hostname } from "node:os";
import { resolve } from "node:path";
import type { RunConfig, Schedule, SweepSpec } from "@tiedlora/experiments";
import { embeddedBase, largestRuns, type RunStore } from "@tiedlora/experiments/node";
import type { BackendName } from "../../device.ts";
import { type Found, pinned } from "../../find-model.ts";
import { interruptible } from "../../interrupt.ts";
import { findSweepModel } from "../../sweep-model.ts";
import { Interrupted, type Output, paint } from "../../output.ts";
import { SweepProgress } from "../../sweep-progress.ts";
import { dataDigest, modelDigest, productVersion } from "../identity.ts";
import { QueueServer } from "../server.ts";
import type { SweepAnnouncement } from "./announcement.ts";
import { sweepOnQueue } from "./coordinator.ts";

interface QueuedCommand {
  readonly spec: SweepSpec;
  readonly store: RunStore;
  readonly schedule: Schedule;
  readonly backend: BackendName;
  readonly json: boolean;
  readonly output: Output;
}

/** Hands the runs of a sweep to the workers of the queue at `url`, and saves their results in the sweep's folder. */
export async function queueCommand(
  url: string,
  { spec, store, schedule, output, ...command }: QueuedCommand,
): Promise<void> {
  const server = await QueueServer.open(url, output);
  try {
    const done = new Set((await store.outcomes()).map(({ id }) => id));
    const all = schedule.runs();
    output.info(
      `${paint("bold", spec.name)}: ${schedule.total} runs, ${done.size} of them finished earlier; performed by the workers of ${server.shown}, ` +
        `results in ${store.directory}`,
    );
    const announcement = await announcementOf(spec, store, all, command.backend, output);
    const progress = new SweepProgress(output, () => schedule.total - done.size, command.json);
    const interrupted = await interruptible(async (signal) => {
      signal.addEventListener("abort", () => server.stopWaiting());
      try {
        await sweepOnQueue(server, {
          schedule,
          store,
          announcement,
          output,
          signal,
          onDone: (outcome) => progress.done(outcome),
          onFailed: (failure) => progress.failed(failure),
        });
      } catch (error) {
        if (!signal.aborted) throw error; // the server may have been away
      } finally {
        progress.stop();
      }
      return signal.aborted;
    });
    progress.end(store.directory);
    if (interrupted) {
      output.info(
        "interrupted; workers finish the runs that they have in hand; the same command collects them and goes on",
      );
      throw new Interrupted();
    }
    if (progress.failures > 0)
      throw new Error(
        `${progress.failures} of ${schedule.total - done.size} runs failed; the same command tries them again`,
      );
  } finally {
    await server.close();
  }
}

/** The name of a sweep on the queue's server: that of its folder on this machine. */
export function sweepId({ directory }: RunStore): string {
  return createHash("sha256")
    .update(`${hostname()}\n${resolve(directory)}`)
    .digest("hex")
    .slice(0, 12);
}

/** How workers elsewhere are told of a model: the name of an embedded one, a hub's name and commit, or its path here. */
function announcedModel(given: string, found: Found): string {
  return embeddedBase(given) !== null ? given : found.hub === null ? resolve(given) : pinned(given, found);
}

async function announcementOf(
  spec: SweepSpec,
  store: RunStore,
  configs: readonly RunConfig[],
  backend: BackendName,
  output: Output,
): Promise<SweepAnnouncement> {
  const { model, quantize } = spec.on;
  const found = await findSweepModel(model, output, "on.model");
  const folders = [...new Set(configs.flatMap(({ data }) => (data === null ? [] : [data])))];
  const data: SweepAnnouncement["data"][number][] = [];
  for (const folder of folders) data.push({ path: resolve(folder), digest: await dataDigest(folder) });
  const { teacher } = spec.train;
  const taught = teacher === undefined ? null : await findSweepModel(teacher, output, "train.teacher");
  return {
    kind: "sweep",
    id: sweepId(store),
    version: productVersion(),
    host: hostname(),
    name: spec.name,
    model: announcedModel(model, found),
    modelDigest: await modelDigest(found.directory),
    ...(teacher !== undefined && {
      teacher: {
        model: announcedModel(teacher, taught!),
        digest: await modelDigest(taught!.directory),
      },
    }),
    ...(quantize !== undefined && { quantize }),
    data,
    backend,
    largest: largestRuns(configs),
  };
}
