/**
 * Greedy generation against PyTorch (eager, with a cache of keys and values), by turns: a model of the shape of stories260K and one of the
 * shape of GPT-2 small (124M), both with random weights. Then, on the second, the time to the first token of prompts of lengths that
 * no prompt has had, over that of the same prompts again.
 *
 *   npm run bench:generation [-- small | gpt2 | first] [--tokens 256]
 */
import { type ChildProcess, spawn } from "node:child_process";
import { availableParallelism, cpus } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { cpu } from "@tiedlora/backend-cpu";
import type { Device } from "@tiedlora/core";
import { configFrom, createModel, type Decoder, generateTokens } from "@tiedlora/models";
import { PYTHON, pythonLibraries } from "./peers/participants.ts";
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
  options: { tokens: { type: "string", default: "256" } },
});
const TOKENS = Number(values.tokens);
const SLOTS = 1024;
const TURNS = 7;
const PROMPT = 16;

function makeModel(device: Device, { kind, vocab, dim, hidden, layers, heads, kvHeads }: Shape): Decoder {
  const llama = { hidden_size: dim, intermediate_size: hidden, num_hidden_layers: layers, num_attention_heads: heads, num_key_value_heads: kvHeads, max_position_embeddings: SLOTS, tie_word_embeddings: true }; // prettier-ignore
  const gpt2 = { n_embd: dim, n_layer: layers, n_head: heads, n_positions: SLOTS };
  const own = kind === "llama" ? llama : gpt2;
  return createModel(configFrom({ model_type: kind, vocab_size: vocab, ...own }), { device, seed: 1 });
}

/** Milliseconds to the first token and to the last one. */
async function generated(
  model: Decoder,
  length: number,
  tokens: number,
): Promise<{ firstMs: number; ms: number }> {
  const prompt = Array.from({ length }, (_, i) => (7 * i) % model.config.vocab);
  const begun = performance.now();
  let firstMs = 0;
  const options = { maxTokens: tokens, stopTokens: [], temperature: 0 };
  for await (const _ of generateTokens(model, [prompt], options)) firstMs ||= performance.now() - begun;
  return { firstMs, ms: performance.now() - begun };
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

async function compare(name: keyof typeof SHAPES): Promise<void> {
  const shape = SHAPES[name];
  const device = await cpu({ revectorize: "auto" });
  const model = makeModel(device, shape);
  const { child, ask } = torch(shape);
  await generated(model, PROMPT, TOKENS);
  await ask(PROMPT, TOKENS);
  const [ours, theirs]: [number[], number[]] = [[], []];
  for (let turn = 0; turn < TURNS; turn++) {
    const own = async (): Promise<number> => ours.push((await generated(model, PROMPT, TOKENS)).ms);
    if (turn % 2 === 0) await own();
    theirs.push(await ask(PROMPT, TOKENS));
    if (turn % 2 === 1) await own();
  }
  child.stdin?.end();
  device.close();
  const { median: ratio, interval } = ratioOf(theirs, ours);
  const [low, high] = interval ?? [NaN, NaN];
  const rate = (ms: readonly number[]): string => ((1000 * TOKENS) / median(ms)).toFixed(0);
  const verdict = ratio >= shape.goal ? "reached" : "MISSED";
  console.log(
    `${name}, ${TOKENS} tokens after ${PROMPT}: ${rate(ours)} tokens/s, PyTorch ${rate(theirs)}; ` +
      `${ratio.toFixed(2)}× [${low.toFixed(2)}, ${high.toFixed(2)}] in ${TURNS} turns, goal ${shape.goal}× ${verdict}`,
  );
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
for (const name of ["small", "gpt2"] as const) if (isWanted(name)) await compare(name);
if (isWanted("first")) await firstTokens();
