/** A worker process of a sweep: performs the runs that its parent sends, one after another, until the parent goes away. */
import { type Device, reference } from "@tiedlora/core";
import { loadPretrained, type Pretrained } from "@tiedlora/models/node";
import { runOne } from "../../sweep/run.ts";
import { embeddedBase } from "../base.ts";
import { lastingCache } from "../lasting-cache.ts";
import { directorySource, NO_FILES } from "../tasks.ts";
import type { Job, Message, Order } from "./protocol.ts";
import { savedFile } from "./saved-file.ts";

const end = (): never => process.exit();

/** Sends a message to the parent; ends the process if that fails, since the parent has gone. */
const say = (message: Message): void => {
  process.send!(message, undefined, undefined, (error) => error && end());
};

async function open({ backend, threads, revectorize }: Job): Promise<Device> {
  switch (backend) {
    case "cpu":
      return (await import("@tiedlora/backend-cpu")).cpu({
        threads,
        ...(revectorize !== undefined && { revectorize }),
        ...lastingCache(),
      });
    case "webgpu":
      return (await import("@tiedlora/backend-webgpu/node")).webgpu(lastingCache());
    case "reference":
      return reference();
  }
}

/** The device and the model are kept for the next run. */
let device: Promise<Device> | null = null;
const models = new Map<string, Promise<Pretrained>>();

/** Why a run ends before it is done: the sweep has asked for it, and the run's state is saved. */
const STOPPED = new Error("stopped");
/** Ends the run that is being performed. */
let current = new AbortController();

/** The model of a name; one that serves as a teacher is never that which is adapted. */
async function load(role: "base" | "teacher", given: string, job: Job): Promise<Pretrained> {
  const { stream = false, config } = job;
  const opened = await (device ??= open(job));
  const quantize = role === "base" ? config.quantize : undefined;
  const name = [role, given, quantize].join(" ");
  let loaded = models.get(name);
  if (loaded === undefined) {
    const options = { device: opened, stream, ...(quantize !== undefined && { quantize }) };
    loaded = loadPretrained(embeddedBase(given) ?? given, options);
    models.set(name, loaded);
  }
  return loaded;
}

async function work(job: Job, signal: AbortSignal): Promise<void> {
  const { config, checkpoint } = job;
  const { model, tokenizer, padId } = await load("base", config.model, job);
  const teacher = config.teacher === undefined ? undefined : (await load("teacher", config.teacher, job)).model; // prettier-ignore
  const source = config.data === null ? NO_FILES : directorySource(config.data);
  const onStep = (step: number, loss: number): void => say({ type: "step", step, loss });
  const saved =
    checkpoint === null ? undefined : savedFile(checkpoint, (step) => say({ type: "saved", step }));
  signal.throwIfAborted();
  say({
    type: "done",
    result: await runOne(config, { model, tokenizer, padId, source, teacher, onStep, signal, saved }),
  });
}

process.on("message", (order: Order) => {
  if (order.type === "stop") return current.abort(STOPPED);
  current = new AbortController();
  work(order.job, current.signal).catch((error: unknown) => {
    if (error === STOPPED) say({ type: "stopped" });
    else say({ type: "failed", message: error instanceof Error ? error.message : String(error) });
  });
});
// The sweep, which gets these signals too, decides what becomes of the run.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => undefined);
process.on("disconnect", end);
if (!process.connected) end(); // the parent went away while this module was loading
