/**
 * Measures training on quantized weights in memory, on a model with random weights that is made for it and removed afterwards.
 *
 *   npm run scale:quantized -- 1b [--dtype f16] [--only nf4] [--layers N] [--tokens 128] [--steps 5] [--directory DIR]
 *   npm run scale:quantized -- 3b [--layers N] [--tokens 512] [--steps 2] [--directory DIR]
 *
 * `1b` loads one model of 1.1 billion parameters as bf16 (or f16), nf4 and int8, takes steps of TL6 by turns on the same random tokens,
 * and prints memory, times and losses; it takes 2.2 GB of disk and 5 GB of memory. `--only` measures one of these forms, and
 * `--threads 1` helps where other programs keep the cores busy. `3b` trains a model of LLaMA-3.2-3B's shape that is stored as NF4, with checkpointing: 2.5 GB of disk, and less than the 4 GiB that one heap of WebAssembly has.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { cpu } from "@tiedlora/backend-cpu";
import { type Device, key, uniformArray } from "@tiedlora/core";
import { configFrom, type Decoder, preset, type QuantizeKind } from "@tiedlora/models";
import { loadModel } from "@tiedlora/models/node";
import * as optim from "@tiedlora/nn/optim";
import { adapt, methods } from "tiedlora";
import { makeModel } from "./make-model.ts";

interface Shape {
  readonly preset: string;
  readonly tokens: number;
  readonly steps: number;
  readonly checkpointing: boolean;
  /** How the weights are stored in the file. */
  readonly stored: "nf4" | undefined;
  /** The forms in which they are loaded; undefined: as they are stored. */
  readonly forms: readonly (QuantizeKind | undefined)[];
}

const SHAPES: Readonly<Record<string, Shape>> = {
  "1b": {
    preset: "tinyllama-1.1b",
    tokens: 128,
    steps: 5,
    checkpointing: false,
    stored: undefined,
    forms: [undefined, "nf4", "nf4+int8", "int8"],
  },
  "3b": {
    preset: "llama-3.2-3b",
    tokens: 512,
    steps: 2,
    checkpointing: true,
    stored: "nf4",
    forms: [undefined],
  },
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    dtype: { type: "string", default: "bf16" },
    only: { type: "string" },
    threads: { type: "string" },
    layers: { type: "string" },
    tokens: { type: "string" },
    steps: { type: "string" },
    directory: { type: "string", default: tmpdir() },
  },
});
const shape = SHAPES[positionals[0] ?? ""];
if (shape === undefined || positionals.length !== 1)
  throw new Error(`give one shape, of ${Object.keys(SHAPES).join(" and ")}`);
const { dtype } = values;
if (dtype !== "f16" && dtype !== "bf16") throw new Error(`--dtype ${dtype}: need f16 or bf16`);
const tokens = Number(values.tokens ?? shape.tokens);
const steps = Number(values.steps ?? shape.steps);
const whole = preset(shape.preset)!;
const layers = Number(values.layers ?? whole.layers);

/** A model in one form on a device of its own, and what has been measured of it. */
interface Contender {
  readonly name: string;
  readonly device: Device;
  readonly weightBytes: number;
  readonly step: () => Promise<number>;
  readonly seconds: number[];
  readonly losses: number[];
}

async function open(directory: string, name: string, quantize: QuantizeKind | undefined): Promise<Contender> {
  const device = await cpu(values.threads === undefined ? {} : { threads: Number(values.threads) });
  const model = await loadModel(directory, { device, ...(quantize !== undefined && { quantize }) });
  const weightBytes = device.memory().liveBytes;
  model.checkpointing = shape!.checkpointing;
  const adapter = adapt(model, methods.tl6({ rank: 8, target: "qkv" }));
  const optimizer = optim.adamW(adapter.parameters(), { lr: 1e-3 });
  const step = (): Promise<number> => takeStep(model, optimizer);
  return { name, device, weightBytes, step, seconds: [], losses: [] };
}

async function takeStep(model: Decoder, optimizer: optim.Optimizer): Promise<number> {
  // one token more than is computed: the last one is only predicted
  const ids = Int32Array.from(uniformArray(key(1), tokens + 1, 0, model.config.vocab), Math.floor);
  const loss = model.loss({ inputIds: [ids] });
  optimizer.step(loss);
  return loss.item();
}

function report(one: Contender, base: Contender): void {
  const { name, device, weightBytes, seconds, losses } = one;
  const least = ({ seconds: all }: Contender): number => Math.min(...(all.length > 1 ? all.slice(1) : all));
  const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(2)} GiB`;
  const times = seconds.map((time) => time.toFixed(1)).join(", ");
  console.log(`${name}: weights ${gib(weightBytes)}, peak of the heap ${gib(device.memory().peakBytes)}`);
  console.log(`  steps of ${times} s; the fastest after the first is ${(least(one) / least(base)).toFixed(2)} times that of ${base.name}`); // prettier-ignore
  console.log(`  losses ${losses.map((loss) => loss.toFixed(4)).join(", ")}`);
}

const directory = mkdtempSync(join(values.directory, "tiedlora-scale-"));
process.once("SIGINT", () => process.exit(130));
process.once("SIGTERM", () => process.exit(143));
process.once("exit", () => rmSync(directory, { recursive: true, force: true }));
console.log(`making a model of ${shape.preset}'s shape with ${layers} layers in ${directory}`);
await makeModel(configFrom({ ...whole.raw, num_hidden_layers: layers }), directory, { dtype, quantize: shape.stored, maxShardBytes: 2e9 }); // prettier-ignore
const contenders: Contender[] = [];
for (const quantize of shape.forms) {
  const name = quantize ?? shape.stored ?? dtype;
  if (values.only === undefined || values.only === name)
    contenders.push(await open(directory, name, quantize));
}
if (contenders.length === 0) throw new Error(`--only ${values.only}: there is no such form`);
for (let i = 0; i < steps; i++)
  for (const { name, device, step, seconds, losses } of contenders) {
    const start = performance.now();
    losses.push(await step());
    await device.sync();
    seconds.push((performance.now() - start) / 1000);
    console.log(
      `  step ${i + 1} as ${name}: ${seconds.at(-1)!.toFixed(1)} s, loss ${losses.at(-1)!.toFixed(4)}`,
    );
  }
console.log(`TL6 of rank 8 on ${tokens} tokens, ${steps} steps`);
for (const one of contenders) report(one, contenders[0]!);
for (const { device } of contenders) device.close();
