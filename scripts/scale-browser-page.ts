/** What scale-browser.ts does in a page: loads the model by ranges of its files, and trains. */
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

interface Loaded {
  readonly device: Device;
  readonly model: Decoder;
}
let loaded: Loaded | null = null;

/** Loads the model; the bytes of its weights on the device. */
async function load(names: readonly string[], quantize: QuantizeKind | null): Promise<number> {
  const files: Files = {
    name: "model",
    open: (name) => (names.includes(name) ? sourceOf(name) : Promise.resolve(null)),
  };
  const device = await cpu();
  const model = await loadModelFrom(files, { device, ...(quantize !== null && { quantize }) });
  model.checkpointing = true;
  loaded = { device, model };
  return device.memory().liveBytes;
}

async function train({
  tokens,
  steps,
}: {
  readonly tokens: number;
  readonly steps: number;
}): Promise<object> {
  const { device, model } = loaded!;
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

Object.assign(globalThis, { load, train });
