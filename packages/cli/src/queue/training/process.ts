/** The process in which a worker computes gradients, while the worker keeps in touch with the queue's server. */
import { cpu } from "@tiedlora/backend-cpu";
import { type Device, reference } from "@tiedlora/core";
import { loadPretrained, type Pretrained } from "@tiedlora/models/node";
import { type Adapter, batchesOf, type BatchSource, GradientWorker, initFromFiles } from "tiedlora";
import { dataFile } from "tiedlora/internal/node";
import { openData, trainedOn } from "../../load.ts";
import { processOutput } from "../../output.ts";
import { quantizeOption } from "../../quantized.ts";
import { decideStreaming } from "../../streaming.ts";
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
}

const joined = new Map<string, Joined>();
/** The base model, which all trainings share. */
let base: Promise<Pretrained> | null = null;

async function openDevice({ announcement, revectorize }: Join): Promise<Device> {
  switch (announcement.settings.backend) {
    case "cpu":
      return cpu({ revectorize });
    case "webgpu":
      return (await import("@tiedlora/backend-webgpu/node")).webgpu();
    case "reference":
      return reference();
  }
}

async function loadBase(join: Join): Promise<Pretrained> {
  const { stream, ...settings } = join.announcement.settings;
  const quantize = quantizeOption(settings.quantize);
  const device = await openDevice(join);
  const output = processOutput();
  return loadPretrained(join.directory, {
    device,
    ...quantize,
    stream: await decideStreaming(join.directory, device, { stream, ...quantize, output }),
  });
}

async function join(request: Join): Promise<null> {
  const { announcement, data } = request;
  const { id, settings, dataFingerprint } = announcement;
  const { model, tokenizer, padId } = await (base ??= loadBase(request));
  const file = (await dataFile(data, "train"))!;
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
    worker: new GradientWorker(model, adapter),
    batch: batchesOf(examples, { batch, maxLength, seed, padId }),
    settings,
  });
  return null;
}

async function work({ id, job, weights }: Work): Promise<Uint8Array> {
  const { model } = await base!;
  const { adapter, worker, batch, settings } = joined.get(id)!;
  for (const other of joined.values()) if (other.adapter !== adapter) other.adapter.active = false;
  adapter.active = true;
  model.checkpointing = settings.checkpointing;
  model.activations = settings.activations;
  if (weights !== null) setTrainedValues(adapter, weights);
  const { step, index, factor } = job;
  return packGradients(await worker.gradients({ step, factor, batch: batch(index) }));
}

function leave(id: string): Promise<null> {
  joined.get(id)?.adapter.detach();
  joined.delete(id);
  return Promise.resolve(null);
}

function perform(request: Request): Promise<Uint8Array | null> {
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
    (result) => say({ type: "done", result }),
    (error: unknown) =>
      say({ type: "failed", message: error instanceof Error ? error.message : String(error) }),
  );
});
process.on("disconnect", end);
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => undefined); // the worker ends this process
if (!process.connected) end(); // the worker went away while this module was loading
