/**
 * Greedy generation against PyTorch (eager, with a cache of keys and values), by turns: a model of the shape of stories260K and one of the
 * shape of GPT-2 small (124M), both with random weights. Then, on the second, the time to the first token of prompts of lengths that
 * no prompt has had, over that of the same prompts again. --against onnx compares with ONNX Runtime for Node on the same weights, which
 * are exported to it; it is installed on demand.
 *
 *   npm run bench:generation [-- small | gpt2 | first] [--tokens 256] [--against torch | onnx]
 */
import { type ChildProcess, spawn } from "node:child_process";
import { availableParallelism, cpus } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { cpu } from "@tiedlora/backend-cpu";
import type { Device } from "@tiedlora/core";
import { configFrom, createModel, type Decoder, generateTokens } from "@tiedlora/models";
import { installOnce, PYTHON, pythonLibraries } from "./peers/participants.ts";
import { median, ratioOf } from "./peers/rounds.ts";

interface Shape {
  readonly kind: "llama" | "gpt2";
  readonly vocab: number;
  readonly dim: number;
  readonly hidden: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly goal: number;
}

const SHAPES: Readonly<Record<"small" | "gpt2", Shape>> = {
  small: { kind: "llama", vocab: 512, dim: 64, hidden: 172, layers: 5, heads: 8, kvHeads: 4, goal: 3 },
  gpt2: { kind: "gpt2", vocab: 50257, dim: 768, hidden: 3072, layers: 12, heads: 12, kvHeads: 12, goal: 1.2 },
};
const { values, positionals: wanted } = parseArgs({
  allowPositionals: true,
  options: { tokens: { type: "string", default: "256" }, against: { type: "string", default: "torch" } },
});
const TOKENS = Number(values.tokens);
const SLOTS = 1024;
const TURNS = 7;
const PROMPT = 16;

function makeModel(device: Device, { kind, vocab, dim, hidden, layers, heads, kvHeads }: Shape): Decoder {
  const llama = { hidden_size: dim, intermediate_size: hidden, num_hidden_layers: layers, num_attention_heads: heads, num_key_value_heads: kvHeads, max_position_embeddings: SLOTS, tie_word_embeddings: true }; // prettier-ignore
  const gpt2 = { n_embd: dim, n_layer: layers, n_head: heads, n_positions: SLOTS };
  const own = kind === "llama" ? llama : gpt2;
  const config = configFrom({ model_type: kind, vocab_size: vocab, initializer_range: 0.1, ...own });
  return createModel(config, { device, seed: 1 });
}

const promptOf = ({ config }: Decoder, length: number): number[] =>
  Array.from({ length }, (_, i) => (7 * i) % config.vocab);

interface Generated {
  readonly tokens: readonly number[];
  /** Milliseconds to the first token. */
  readonly firstMs: number;
  /** Milliseconds to the last token. */
  readonly ms: number;
}

async function generated(model: Decoder, length: number, count: number): Promise<Generated> {
  const prompt = promptOf(model, length);
  const begun = performance.now();
  let firstMs = 0;
  const tokens: number[] = [];
  const options = { maxTokens: count, stopTokens: [], temperature: 0 };
  for await (const [token] of generateTokens(model, [prompt], options)) {
    firstMs ||= performance.now() - begun;
    tokens.push(token!);
  }
  return { tokens, firstMs, ms: performance.now() - begun };
}

/** The process that generates with PyTorch, and what asks it. */
function torch(shape: Shape): {
  child: ChildProcess;
  ask: (prompt: number, tokens: number) => Promise<number>;
} {
  const threads = availableParallelism();
  const script = join(import.meta.dirname, "peers/torch_generate.py");
  const env = { ...process.env, LD_LIBRARY_PATH: pythonLibraries(), OMP_NUM_THREADS: String(threads) };
  const child = spawn(PYTHON, [script, JSON.stringify({ ...shape, slots: SLOTS, threads })], {
    stdio: ["pipe", "pipe", "inherit"],
    env,
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ask = async (prompt: number, tokens: number): Promise<number> => {
    child.stdin.write(`${JSON.stringify({ prompt, tokens })}\n`);
    const { value, done } = await lines.next();
    if (done) throw new Error("the process with PyTorch has ended: apt-get install python3-torch");
    return (JSON.parse(value) as { ms: number }).ms;
  };
  return { child, ask };
}

/** Prints our rate, a peer's, and the ratio of the times, which are taken by turns. */
async function byTurns(
  what: string,
  goal: number,
  peer: string,
  ours: () => Promise<number>,
  theirs: () => Promise<number>,
): Promise<void> {
  await ours();
  await theirs();
  const [own, other]: [number[], number[]] = [[], []];
  for (let turn = 0; turn < TURNS; turn++) {
    if (turn % 2 === 0) own.push(await ours());
    other.push(await theirs());
    if (turn % 2 === 1) own.push(await ours());
  }
  const { median: ratio, interval } = ratioOf(other, own);
  const [low, high] = interval ?? [NaN, NaN];
  const rate = (ms: readonly number[]): string => ((1000 * TOKENS) / median(ms)).toFixed(0);
  console.log(
    `${what}, ${TOKENS} tokens after ${PROMPT}: ${rate(own)} tokens/s, ${peer} ${rate(other)}; ` +
      `${ratio.toFixed(2)}× [${low.toFixed(2)}, ${high.toFixed(2)}] in ${TURNS} turns, goal ${goal}× ${ratio >= goal ? "reached" : "MISSED"}`,
  );
}

type ShapeName = keyof typeof SHAPES;

async function againstTorch(name: ShapeName): Promise<void> {
  const shape = SHAPES[name];
  const device = await cpu({ revectorize: "auto" });
  const model = makeModel(device, shape);
  const { child, ask } = torch(shape);
  const ours = async (): Promise<number> => (await generated(model, PROMPT, TOKENS)).ms;
  await byTurns(name, shape.goal, "PyTorch", ours, () => ask(PROMPT, TOKENS));
  child.stdin?.end();
  device.close();
}

/** What bench/onnx/session.mjs exports; it is no part of the types, since its packages are installed on demand. */
interface OnnxSession {
  readonly onnxGenerator: (model: Decoder, slots: number, threads: number) => Promise<OnnxGenerator>;
}

interface OnnxGenerator {
  readonly generate: (prompt: number[], tokens: number) => Promise<number[]>;
  readonly release: () => Promise<void>;
}

async function onnx(): Promise<OnnxSession> {
  installOnce(join(import.meta.dirname, "onnx"), "onnxruntime-node", 290);
  return (await import(String(new URL("./onnx/session.mjs", import.meta.url)))) as OnnxSession;
}

/** How many tokens must be the same: later ones may differ, since two are equally likely up to rounding now and then. */
const SAME = 16;

async function elapsed(work: () => Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await work();
  return performance.now() - begun;
}

/** The generator with one thread or with one for each core, whichever is faster: threads cost a small model more than they bring. */
async function fasterOnnx(
  model: Decoder,
  prompt: number[],
): Promise<OnnxGenerator & { readonly threads: number }> {
  const { onnxGenerator } = await onnx();
  const tried: { generator: OnnxGenerator; threads: number; ms: number }[] = [];
  for (const threads of new Set([1, availableParallelism()])) {
    const generator = await onnxGenerator(model, SLOTS, threads);
    await generator.generate(prompt, SAME);
    tried.push({ generator, threads, ms: await elapsed(() => generator.generate(prompt, SAME)) });
  }
  const best = tried.reduce((a, b) => (b.ms < a.ms ? b : a));
  for (const one of tried) if (one !== best) await one.generator.release();
  return { ...best.generator, threads: best.threads };
}

async function againstOnnx(name: ShapeName): Promise<void> {
  const device = await cpu({ revectorize: "auto" });
  const model = makeModel(device, SHAPES[name]);
  const prompt = promptOf(model, PROMPT);
  const { generate, release, threads } = await fasterOnnx(model, prompt);
  const [own, other] = [(await generated(model, PROMPT, SAME)).tokens, await generate(prompt, SAME)];
  if (own.join() !== other.join()) throw new Error(`${name}: we generate ${own.join()}, and ONNX Runtime ${other.join()}`); // prettier-ignore
  const ours = async (): Promise<number> => (await generated(model, PROMPT, TOKENS)).ms;
  const theirs = (): Promise<number> => elapsed(() => generate(prompt, TOKENS));
  await byTurns(name, 1, `ONNX Runtime with ${threads} threads`, ours, theirs);
  await release();
  device.close();
}

/** Lengths that are padded to sizes of their own. */
const KNOWN = [20, 40, 90, 200];
const NEW = [24, 60, 70, 128, 180];

async function firstTokens(): Promise<void> {
  const device = await cpu({ revectorize: "auto" });
  const model = makeModel(device, SHAPES.gpt2);
  for (const length of KNOWN) await generated(model, length, 1);
  const ratios: number[] = [];
  for (const length of NEW) {
    const { firstMs } = await generated(model, length, 1);
    const again: number[] = [];
    for (let i = 0; i < 3; i++) again.push((await generated(model, length, 1)).firstMs);
    ratios.push(firstMs / median(again));
    console.log(
      `a prompt of ${length} tokens: ${firstMs.toFixed(0)} ms to the first token, ${median(again).toFixed(0)} ms when known`,
    );
  }
  device.close();
  console.log(`a new length over a known one: ${median(ratios).toFixed(2)} in the median, goal 1.3`);
}

console.log(`${cpus()[0]?.model.trim() ?? "?"}, Node ${process.versions.node}`);
const isWanted = (name: string): boolean => wanted.length === 0 || wanted.includes(name);
const against = { torch: againstTorch, onnx: againstOnnx }[values.against];
if (against === undefined) throw new Error(`--against ${values.against}: expected torch or onnx`);
for (const name of ["small", "gpt2"] as const) if (isWanted(name)) await against(name);
if (isWanted("first")) await firstTokens();
