/**
 * Replays training runs that were recorded with PyTorch in float64, and prints how far ours deviate from them.
 *
 *   npm run oracle -- DIR [--backend cpu|reference|webgpu] [--model DIR] [--only NAME] [--activations f16|bf16]
 *
 * DIR holds a NAME.json (settings, losses) and a NAME.safetensors (init.*, grad0.*, final.*, input_ids, loss_mask) for
 * each run; the base model is models/stories260K in DIR/../.. or in the folder of shared data, unless --model is given. The
 * exit code is non-zero if a run deviates by more than 1e-5 in a loss, or 1e-4 in the first gradients or the final values.
 * With --activations, layers' inputs are kept for the backward pass in half precision; the limits are for f32 alone.
 * The reference backend uses one core, so with it the script replays one run per core at a time.
 */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import {
  decodeF32,
  decodeTensor,
  type Device,
  grad,
  openSafetensors,
  type Tensor,
  type TensorFile,
} from "@tiedlora/core";
import * as optim from "@tiedlora/nn/optim";
import { fileSource } from "@tiedlora/core/node";
import { loadModel } from "@tiedlora/models/node";
import { adapt, type Adapter, type FactorName, FACTOR_NAMES, type SitePlan, tiedLora } from "tiedlora";
import { BACKENDS, isBackendName } from "./backends.ts";

/** How far a run may deviate. PyTorch in float32 deviates by 2e-7, 2e-6 and 3e-6. */
export const LIMITS = { losses: 1e-5, gradients: 1e-4, finals: 1e-4 } as const;

/** The types in which layers' inputs can be kept for the backward pass. */
const ACTIVATIONS = ["f32", "f16", "bf16"] as const;
type Activations = (typeof ACTIVATIONS)[number];

interface Settings {
  readonly method: string;
  readonly trained: readonly FactorName[];
  readonly tied: boolean;
  readonly rank: number;
  readonly steps: number;
  readonly lr: number;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weight_decay: number;
  readonly batch: number;
  readonly losses: readonly number[];
}

export interface Deviation {
  /** The largest |loss - recorded| / recorded. */
  readonly losses: number;
  /** The largest norm of the difference in one factor's gradient, over the norm of all recorded gradients together. */
  readonly gradients: number;
  /** For each factor: the norm of the difference over the norm of the recorded values. */
  readonly finals: ReadonlyMap<FactorName, number>;
  readonly seconds: number;
}

export function withinLimits({ losses, gradients, finals }: Deviation): boolean {
  const worst = Math.max(...finals.values());
  // Negated comparisons would let NaN pass.
  return losses <= LIMITS.losses && gradients <= LIMITS.gradients && worst <= LIMITS.finals;
}

/** Replays the run `name` of a directory, and returns how far it deviates. */
export async function replay(
  directory: string,
  name: string,
  modelDir: string,
  device: Device,
  activations: Activations = "f32",
): Promise<Deviation> {
  const settings = JSON.parse(await readFile(join(directory, `${name}.json`), "utf8")) as Settings;
  const file = await openSafetensors(await fileSource(join(directory, `${name}.safetensors`)));
  try {
    return await replayRun(settings, file, modelDir, device, activations);
  } finally {
    await file.close();
  }
}

async function replayRun(
  settings: Settings,
  file: TensorFile,
  modelDir: string,
  device: Device,
  activations: Activations,
): Promise<Deviation> {
  const started = performance.now();
  const model = await loadModel(modelDir, { device });
  model.checkpointing = activations !== "f32";
  model.activations = activations;
  const recorded = (name: string): Promise<Float32Array> =>
    file.read(name).then((tensor) => decodeF32(tensor, file.name, name));
  const inits = new Map<FactorName, Float32Array>();
  for (const factor of FACTOR_NAMES) inits.set(factor, await recorded(`init.${factor}`));
  const keep = (["u", "v"] as const).filter((vector) => inits.get(vector)!.some((value) => value !== 1));
  const { trained, tied, rank } = settings;
  const adapter = adapt(model, tiedLora({ name: settings.method, trained, tied, rank, keep, target: "qkv" }));
  for (const [factor, values] of inits) setFactor(adapter, factor, values);

  const batches = await readBatches(file, settings.batch, device);
  const optimizer = optim.adamW(adapter.parameters(), {
    lr: settings.lr,
    betas: settings.betas,
    eps: settings.eps,
    weightDecay: settings.weight_decay,
  });
  const gradients = await gradientDeviation(adapter, model.loss(batches[0]!), trained, recorded);
  let losses = 0;
  for (let step = 0; step < settings.steps; step++) {
    const loss = model.loss(batches[step % batches.length]!);
    optimizer.step(loss);
    const expected = settings.losses[step]!;
    losses = worse(losses, Math.abs((await loss.item()) - expected) / Math.abs(expected));
  }
  const finals = new Map<FactorName, number>();
  for (const factor of FACTOR_NAMES) {
    const expected = await recorded(`final.${factor}`);
    const actual = await factorValues(adapter, factor);
    if (actual !== null) finals.set(factor, norm(difference(actual, expected)) / (norm(expected) || 1));
  }
  return { losses, gradients, finals, seconds: (performance.now() - started) / 1000 };
}

/** The larger of two deviations; NaN counts as the largest. */
const worse = (a: number, b: number): number => (Number.isNaN(a) || Number.isNaN(b) ? NaN : Math.max(a, b));
const norm = (values: Float32Array | Float64Array): number =>
  Math.sqrt(Array.from(values).reduce((sum, value) => sum + value * value, 0));

function difference(a: Float32Array, b: Float32Array): Float64Array {
  if (a.length !== b.length) throw new Error(`${a.length} values here, ${b.length} recorded`);
  return Float64Array.from(a, (value, i) => value - b[i]!);
}

/** One site for each parameter of a factor: one if it is tied, else one per layer; none if the factor is left out. */
function ownSites(adapter: Adapter, factor: FactorName): SitePlan[] {
  const seen = new Set<unknown>();
  return adapter.plan.sites.filter(({ factors }) => {
    const plan = factors.get(factor);
    return plan !== undefined && !seen.has(plan) && seen.add(plan);
  });
}

function parametersOf(adapter: Adapter, factor: FactorName): ReturnType<Adapter["parameter"]>[] {
  return ownSites(adapter, factor).map(({ site }) => adapter.parameter(`${site.path}.${factor}`));
}

/** Sets the parameters of a factor; `values` is [n, ...], the values of its n parameters one after another. */
function setFactor(adapter: Adapter, factor: FactorName, values: Float32Array): void {
  const parameters = parametersOf(adapter, factor);
  let at = 0;
  for (const parameter of parameters) parameter.set(values.slice(at, (at += parameter.size)));
  if (parameters.length > 0 && at !== values.length)
    throw new Error(`init.${factor} has ${values.length} values, the adapter ${at}`);
}

async function factorValues(adapter: Adapter, factor: FactorName): Promise<Float32Array | null> {
  const parameters = parametersOf(adapter, factor);
  return parameters.length === 0 ? null : join32(parameters);
}

async function join32(tensors: readonly Tensor[]): Promise<Float32Array> {
  const parts: number[] = [];
  for (const tensor of tensors) parts.push(...(await tensor.data()));
  return Float32Array.from(parts);
}

async function gradientDeviation(
  adapter: Adapter,
  loss: Tensor,
  trained: readonly FactorName[],
  recorded: (name: string) => Promise<Float32Array>,
): Promise<number> {
  const parameters = trained.map((factor) => parametersOf(adapter, factor));
  const gradients = grad(loss, parameters.flat());
  let [at, squares, worst] = [0, 0, 0];
  for (const [i, factor] of trained.entries()) {
    const count = parameters[i]!.length;
    const actual = await join32(gradients.slice(at, (at += count)));
    const expected = await recorded(`grad0.${factor}`);
    squares += norm(expected) ** 2;
    worst = worse(worst, norm(difference(actual, expected)));
  }
  return worst / Math.sqrt(squares);
}

type LossInputs = { readonly inputIds: Tensor; readonly mask: Tensor };

/** The recorded rows as batches of `batch` rows; step s uses batch s modulo their number. */
async function readBatches(file: TensorFile, batch: number, device: Device): Promise<LossInputs[]> {
  const ids = decodeTensor(await file.read("input_ids"), file.name, "input_ids").values;
  const mask = decodeF32(await file.read("loss_mask"), file.name, "loss_mask");
  const [rows = 0, length = 0] = file.entries.get("input_ids")!.shape;
  const shape = [batch, length];
  return Array.from({ length: rows / batch }, (_, i) => {
    const part = [i * batch * length, (i + 1) * batch * length] as const;
    return {
      inputIds: device.tensor(Int32Array.from(ids.slice(...part)), { shape, dtype: "i32" }),
      mask: device.tensor(mask.slice(...part), { shape }),
    };
  });
}

async function main(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: {
      backend: { type: "string", default: "cpu" },
      model: { type: "string" },
      only: { type: "string" },
      activations: { type: "string", default: "f32" },
    },
  });
  const [directory] = positionals;
  const open = isBackendName(values.backend) ? BACKENDS[values.backend] : undefined;
  const activations = ACTIVATIONS.find((type) => type === values.activations);
  if (directory === undefined || open === undefined || activations === undefined) {
    console.error(
      `usage: npm run oracle -- DIR [--backend ${Object.keys(BACKENDS).join("|")}] [--model DIR] [--only NAME] ` +
        `[--activations ${ACTIVATIONS.join("|")}]`,
    );
    return 2;
  }
  const names = (await readdir(directory))
    .filter((file) => file.endsWith(".json"))
    .map((file) => file.slice(0, -".json".length))
    .filter((name) => values.only === undefined || name === values.only)
    .sort();
  if (names.length === 0) {
    console.error(`${directory} holds no run${values.only === undefined ? "" : ` named ${values.only}`}`);
    return 2;
  }
  const model = values.model ?? modelFor(directory);
  const limits = Object.entries(LIMITS).map(([what, limit]) => `${what} ${limit}`);
  console.log(`on ${values.backend}; limits: ${limits.join(", ")}`);
  const failed =
    values.backend === "reference" && names.length > 1
      ? await inProcesses(names, [
          "--backend",
          "reference",
          "--model",
          model,
          "--activations",
          activations,
          directory,
        ])
      : await here(names, directory, model, open, activations);
  console.log(`${names.length - failed} of ${names.length} runs within the limits`);
  return failed === 0 ? 0 : 1;
}

/** The default directory of the base model. */
function modelFor(directory: string): string {
  const shared = process.env["TIEDLORA_SHARED"] ?? resolve(import.meta.dirname, "../../shared");
  const places = [join(directory, "../.."), shared].map((place) => join(place, "models/stories260K"));
  return places.find((place) => existsSync(place)) ?? places[0]!;
}

/** Replays one run after another on one device. Returns the number of runs that failed. */
async function here(
  names: readonly string[],
  directory: string,
  model: string,
  open: () => Promise<Device>,
  activations: Activations,
): Promise<number> {
  const device = await open();
  let failed = 0;
  try {
    for (const name of names) {
      const deviation = await replay(directory, name, model, device, activations);
      if (!withinLimits(deviation)) failed++;
      console.log(line(name, deviation));
    }
  } finally {
    device.close();
  }
  return failed;
}

/** Replays each run in its own process, one per core at a time. Returns the number of runs that failed. */
async function inProcesses(names: readonly string[], flags: readonly string[]): Promise<number> {
  const waiting = [...names];
  let failed = 0;
  const work = async (): Promise<void> => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
      const script = fileURLToPath(import.meta.url);
      const child = spawn(process.execPath, [...process.execArgv, script, ...flags, "--only", name], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      let text = "";
      child.stdout.on("data", (data: Buffer) => (text += data.toString()));
      const code = await new Promise((done) => child.once("close", done));
      if (code !== 0) failed++;
      const own = text.split("\n").find((row) => /^(ok|FAIL) /.test(row));
      console.log(own ?? `FAIL ${name.padEnd(12)} ended with code ${String(code)}`);
    }
  };
  await Promise.all(Array.from({ length: Math.min(availableParallelism(), names.length) }, work));
  return failed;
}

function line(name: string, deviation: Deviation): string {
  const show = (value: number): string => value.toExponential(1);
  const finals = [...deviation.finals].map(([factor, value]) => `${factor} ${show(value)}`).join("  ");
  const verdict = withinLimits(deviation) ? "ok  " : "FAIL";
  return (
    `${verdict} ${name.padEnd(12)} losses ${show(deviation.losses)}  first gradients ${show(deviation.gradients)}  ` +
    `final ${finals}  (${deviation.seconds.toFixed(1)} s)`
  );
}

if (process.argv[1]?.endsWith("oracle.ts")) process.exitCode = await main(process.argv.slice(2));
