/** The jobs that browser tests run inside the page: the conformance suite's core, and a fine-tuning job. Bundled by esbuild. */
import { cpu, CpuBackend } from "@tiedlora/backend-cpu";
import { webgpu, type WebGpuBackend } from "@tiedlora/backend-webgpu";
import { Device, type DeviceOptions, reference } from "@tiedlora/core";
import * as optim from "@tiedlora/nn/optim";
import { configFrom, createModel } from "@tiedlora/models";
import { conformance } from "@tiedlora/test";
import { recorded } from "@tiedlora/test/recorded";
import { adapt, methods } from "tiedlora";

const OPEN = {
  cpu: (options: DeviceOptions): Promise<Device> => cpu(options),
  webgpu: (options: DeviceOptions): Promise<Device> => webgpu(options),
  "webgpu f16": (options: DeviceOptions): Promise<Device> => webgpu({ ...options, matmulPrecision: "f16" }),
  "webgpu plain": (options: DeviceOptions): Promise<Device> => webgpu({ ...options, variant: "plain" }),
  reference: (options: DeviceOptions): Promise<Device> => Promise.resolve(reference(options)),
} as const;

export type PageBackend = keyof typeof OPEN;

export interface CaseResult {
  readonly name: string;
  readonly error?: string;
}

/** Runs cases one after another. `watch` is called with the name of each case before it starts. */
async function runCases(
  cases: Iterable<{ readonly name: string; readonly run: () => Promise<void> }>,
  watch?: (name: string) => void,
): Promise<CaseResult[]> {
  const results: CaseResult[] = [];
  for (const { name, run } of cases) {
    watch?.(name);
    const error = await run().then(
      () => undefined,
      (e: unknown) => String(e),
    );
    results.push(error === undefined ? { name } : { name, error });
  }
  return results;
}

interface Part {
  readonly part: number;
  readonly parts: number;
  readonly effort: number;
  readonly seed?: number;
}

/** Runs part of the suite's core: the cases whose position is `part` modulo `parts`. */
async function runSuite(backend: PageBackend, { part, parts, ...options }: Part): Promise<CaseResult[]> {
  const suite = conformance((device) => OPEN[backend](device), { subset: "core", ...options });
  const cases = suite.cases.filter((_, i) => i % parts === part);
  const results = await runCases(cases, (name) => console.log(name));
  await suite.close();
  return results;
}

/** Runs a share of the cases recorded from PyTorch. */
async function runRecorded(backend: PageBackend, share: number): Promise<CaseResult[]> {
  const suite = recorded(() => OPEN[backend]({}), { backend, share });
  const results = await runCases(suite.cases);
  await suite.close();
  return results;
}

/** Fine-tunes a small Llama with tied adapters. Returns the loss of each step. */
export async function fineTune(backend: PageBackend, steps: number): Promise<number[]> {
  const device = await OPEN[backend]({});
  const config = configFrom({
    model_type: "llama",
    vocab_size: 29,
    hidden_size: 32,
    intermediate_size: 48,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    initializer_range: 0.2,
  });
  const model = createModel(config, { device, seed: 1 });
  const adapter = adapt(model, methods.tl6({ rank: 4, target: "qkv" }), { seed: 2 });
  const optimizer = optim.adamW(adapter.parameters(), { lr: 2e-2 });
  const inputIds = [0, 1, 2].map((row) => Array.from({ length: 12 }, (_, i) => (i * (row + 3) + row) % 29));
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    const loss = model.loss({ inputIds });
    optimizer.step(loss);
    losses.push(await loss.item());
  }
  device.close();
  return losses;
}

/** The threads, cores and GPU adapter that the backends find in this page. */
async function describe(): Promise<{ threads: number; cores: number; adapter: string }> {
  const [processor, graphics] = [await cpu(), await webgpu()];
  const { threads } = processor.backend as CpuBackend;
  const { description } = (graphics.backend as WebGpuBackend).adapter;
  processor.close();
  graphics.close();
  return { threads, cores: navigator.hardwareConcurrency, adapter: description };
}

/** Asks the CPU backend for two threads: how many it has, why not more, its warnings, and a product computed with them. */
async function threads(): Promise<{
  threads: number;
  why: string | null;
  warnings: string[];
  product: number;
}> {
  const warnings: string[] = [];
  const { warn } = console;
  console.warn = (...words: unknown[]) => void warnings.push(words.join(" "));
  try {
    const device = await cpu({ threads: 2, inlineNs: 0 });
    const x = device.tensor(new Float32Array(4096).fill(1), { shape: [64, 64] });
    const product = await x.matmul(x).sum().item();
    const { threads: count, whyFewerThreads: why } = device.backend as CpuBackend;
    device.close();
    return { threads: count, why, warnings, product };
  } finally {
    console.warn = warn;
  }
}

/** The result, or the error message, of a backend that was made without checking whether workers can start. */
async function unaskedThreads(): Promise<string> {
  const device = new Device(new CpuBackend({ threads: 2, inlineNs: 0 }));
  const x = device.tensor(new Float32Array(4096).fill(1), { shape: [64, 64] });
  const message = await x.matmul(x).sum().item().then(String, String);
  device.close();
  return message;
}

const jobs = { runSuite, runRecorded, fineTune, describe, threads, unaskedThreads };
Object.assign(globalThis, { jobs });
