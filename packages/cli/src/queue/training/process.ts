/** The process in which a worker computes gradients, while the worker keeps in touch with the queue's server. */
import { cpu } from "@tiedlora/backend-cpu";
import { type Device, reference } from "@tiedlora/core";
import { lastingCache } from "@tiedlora/experiments/node";
import { loadPretrained, type Pretrained } from "@tiedlora/models/node";
import {
  type Adapter,
  batchesOf,
  type BatchSource,
  GradientWorker,
  initFromFiles,
  type LanguageModel,
  type TextFile,
} from "tiedlora";
import { dataFile } from "tiedlora/internal/node";
import { openData, tokensOf, trainedOn } from "../../load.ts";
import { processOutput } from "../../output.ts";
import { quantizeOption } from "../../quantized.ts";
import { decideStreaming } from "../../streaming.ts";
import { QueueServer } from "../server.ts";
import { lossFor } from "../../loss-settings.ts";
import { KEPT_SECONDS, names, settingsDigest } from "./announcement.ts";
import type { Answer, Request } from "./protocol.ts";
import { packGradients, setTrainedValues, unpackFiles } from "./values.ts";

type Join = Extract<Request, { type: "join" }>;
type Work = Extract<Request, { type: "work" }>;

/** A training that this process works for. */
interface Joined {
  readonly adapter: Adapter;
  readonly worker: GradientWorker;
  readonly batch: BatchSource;
  readonly settings: Join["announcement"]["settings"];
  /** The step whose values the adapter has. */
  step: number | null;
}

const joined = new Map<string, Joined>();
/** The base model, which all trainings share. */
let base: Promise<Pretrained> | null = null;

async function openDevice({ announcement, revectorize }: Join): Promise<Device> {
  switch (announcement.settings.backend) {
    case "cpu":
      return cpu({ revectorize, ...lastingCache() });
    case "webgpu":
      return (await import("@tiedlora/backend-webgpu/node")).webgpu(lastingCache());
    case "reference":
      return reference();
  }
}

async function loadBase(join: Join, file: TextFile): Promise<Pretrained> {
  const { stream, ...settings } = join.announcement.settings;
  const quantize = quantizeOption(settings.quantize);
  const device = await openDevice(join);
  const data = { ...settings, data: join.data };
  const step = { ...settings, tokens: tokensOf(join.directory, file, data) };
  const output = processOutput();
  return loadPretrained(join.directory, {
    device,
    ...quantize,
    stream: await decideStreaming(join.directory, device, { stream, ...quantize, step, output }),
  });
}

/** The models that trainings learn from, by directory. */
const teachers = new Map<string, Promise<Pretrained>>();

/** The model that a training learns from, on the device of the base model, and streamed as that is; null if it has none. */
async function teacherOf(
  { teacher }: Join,
  { model: { device, streamed } }: Pretrained,
): Promise<LanguageModel | null> {
  if (teacher === null) return null;
  let loaded = teachers.get(teacher);
  if (loaded === undefined) {
    loaded = loadPretrained(teacher, { device, stream: streamed !== null });
    teachers.set(teacher, loaded);
  }
  return (await loaded).model;
}

/** The queue's server, for what is large: values and gradients do not take the way through the worker. */
let server: Promise<QueueServer> | null = null;

async function join(request: Join): Promise<boolean> {
  const { announcement, data } = request;
  const { id, settings, dataFingerprint } = announcement;
  if (settingsDigest(settings) !== announcement.settingsDigest)
    throw new Error(
      `the loss and the other settings of training ${id} are not read here as they were written: their digests differ`,
    );
  await (server ??= QueueServer.open(request.queue, processOutput(), { patient: true }));
  const file = (await dataFile(data, "train"))!;
  const loaded = await (base ??= loadBase(request, file));
  const { model, tokenizer, padId } = loaded;
  const loss = lossFor(settings, await teacherOf(request, loaded));
  const dataset = await openData(file, tokenizer, { ...settings, data }, model.config);
  if (dataset.fingerprint !== dataFingerprint)
    throw new Error(
      `the examples of ${file.name} are not those of the training: their fingerprint is ${dataset.fingerprint}, and that of the training's ` +
        `${dataFingerprint}; give the same examples with --data`,
    );
  const { seed, batch, seq: maxLength } = settings;
  const files = unpackFiles(request.adapter, `the adapter of training ${id}`);
  const adapter = await initFromFiles(model, files, { seed, name: id, active: false });
  const examples = trainedOn(dataset, settings);
  joined.set(id, {
    adapter,
    worker: new GradientWorker(model, adapter, loss),
    batch: batchesOf(examples, { batch, maxLength, seed, padId }),
    settings,
    step: null,
  });
  return false;
}

async function work({ id, job }: Work): Promise<boolean> {
  const { model } = await base!;
  const { store } = await server!;
  const at = joined.get(id)!;
  const { adapter, worker, batch, settings } = at;
  const { step, index, factor } = job;
  const weights = step === at.step ? null : await store.get(names.weights(id, step));
  if (weights === null && step !== at.step) return false;
  for (const other of joined.values()) if (other.adapter !== adapter) other.adapter.active = false;
  adapter.active = true;
  model.checkpointing = settings.checkpointing;
  model.activations = settings.activations;
  if (weights !== null) {
    at.step = null; // until all are set
    setTrainedValues(adapter, weights);
    at.step = step;
  }
  const gradients = packGradients(await worker.gradients({ step, factor, batch: batch(index) }));
  await store.set(names.gradients(id, job), gradients, KEPT_SECONDS);
  return true;
}

function leave(id: string): Promise<boolean> {
  joined.get(id)?.adapter.detach();
  joined.delete(id);
  return Promise.resolve(false);
}

function perform(request: Request): Promise<boolean> {
  switch (request.type) {
    case "join":
      return join(request);
    case "work":
      return work(request);
    case "leave":
      return leave(request.id);
  }
}

const end = (): never => process.exit();
const say = (answer: Answer): void => {
  process.send!(answer, undefined, undefined, (error) => error && end());
};

process.on("message", (request: Request) => {
  perform(request).then(
    (stored) => say({ type: "done", stored }),
    (error: unknown) =>
      say({ type: "failed", message: error instanceof Error ? error.message : String(error) }),
  );
});
process.on("disconnect", end);
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => undefined); // the worker ends this process
if (!process.connected) end(); // the worker went away while this module was loading
