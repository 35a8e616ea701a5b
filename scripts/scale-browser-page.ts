/** What scale-browser.ts does in a page: loads the model by ranges of its files, trains, and tells the server how far it is. */
import { cpu } from "@tiedlora/backend-cpu";
import { type Device, type Files, key, type Source, streamInto, uniformArray } from "@tiedlora/core";
import { type Decoder, loadModelFrom, type QuantizeKind } from "@tiedlora/models";
import * as optim from "@tiedlora/nn/optim";
import { adapt, methods } from "tiedlora";

async function rangeOf(name: string, offset: number, length: number): Promise<Response> {
  const last = Math.max(offset, offset + length - 1);
  return fetch(`/${name}`, { headers: { range: `bytes=${offset}-${last}` }, cache: "no-store" });
}

async function sourceOf(name: string): Promise<Source> {
  const size = Number((await rangeOf(name, 0, 1)).headers.get("x-size"));
  const read = async (offset: number, length: number): Promise<Uint8Array> =>
    length === 0
      ? new Uint8Array()
      : new Uint8Array(await (await rangeOf(name, offset, length)).arrayBuffer());
  const readInto = async (offset: number, target: Uint8Array): Promise<number> =>
    target.byteLength === 0 ? 0 : streamInto((await rangeOf(name, offset, target.byteLength)).body!, target);
  return { name, size, read, readInto };
}

/** What the page is to do. */
export interface Task {
  /** The names of the model's files. */
  readonly names: readonly string[];
  readonly quantize: QuantizeKind | null;
  readonly tokens: number;
  readonly steps: number;
}

/** What it has done. */
export interface Trained {
  /** The peak of the heap, in bytes. */
  readonly heap: number;
  readonly seconds: readonly number[];
  readonly losses: readonly number[];
}

function load({ names, quantize }: Task, device: Device): Promise<Decoder> {
  const files: Files = {
    name: "model",
    open: (name) => (names.includes(name) ? sourceOf(name) : Promise.resolve(null)),
  };
  return loadModelFrom(files, { device, ...(quantize !== null && { quantize }) });
}

async function train({ tokens, steps }: Task, device: Device, model: Decoder): Promise<Trained> {
  model.checkpointing = true;
  const adapter = adapt(model, methods.tl6({ rank: 8, target: "qkv" }));
  const optimizer = optim.adamW(adapter.parameters(), { lr: 1e-3 });
  const ids = Int32Array.from(uniformArray(key(1), tokens + 1, 0, model.config.vocab), Math.floor);
  const [seconds, losses]: [number[], number[]] = [[], []];
  for (let step = 0; step < steps; step++) {
    const start = performance.now();
    const loss = model.loss({ inputIds: [ids] });
    optimizer.step(loss);
    losses.push(await loss.item());
    await device.sync();
    seconds.push((performance.now() - start) / 1000);
  }
  return { heap: device.memory().peakBytes, seconds, losses };
}

/** Tells the server, which looks at this process's memory before it answers. */
async function tell(what: string, value: unknown): Promise<void> {
  await fetch(`/said/${what}`, { method: "POST", body: JSON.stringify(value) });
}

try {
  const task = (await (await fetch("/task")).json()) as Task;
  await tell("begun", null);
  const device = await cpu();
  const model = await load(task, device);
  await tell("loaded", device.memory().liveBytes);
  await tell("trained", await train(task, device, model));
} catch (error) {
  await tell("failed", error instanceof Error ? (error.stack ?? error.message) : String(error));
}
