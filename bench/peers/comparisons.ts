/** The comparisons and their goals: the peer's time ÷ ours, where the peer uses its fastest configuration. */
import { GPT, type GptSize, type Method, type Work } from "../problems.ts";
import type { Task } from "./serve.ts";

/** The goals on Node 20, and on versions with 256-bit revectorization. */
export type Goal = readonly [plain: number, revectorized: number];

export interface StepComparison {
  readonly name: string;
  readonly work: Work;
  readonly backend: Task["backend"];
  /** Left out where no peer in JavaScript takes part. */
  readonly javascript?: Goal;
  readonly pytorch?: Goal;
  /** Goals for the peak memory of the process: the peer's ÷ ours, by kind of peer. */
  readonly memory?: { readonly javascript: number; readonly pytorch: number };
  /** Whether --quick includes it. */
  readonly quick?: true;
}

const gpt = (size: "small" | "medium", method: Method): Work => ({ kind: "gpt", size, method });
const LORA: { javascript: Goal; pytorch: Goal } = { javascript: [3.2, 5], pytorch: [0.6, 0.9] };
const WEBGPU = { backend: "webgpu", javascript: [6, 6] } as const;

export const STEPS: readonly StepComparison[] = [
  { name: "MLP, cpu", work: { kind: "mlp" }, backend: "cpu", javascript: [2.8, 4], quick: true },
  { name: "GPT small, cpu", work: gpt("small", "full"), backend: "cpu", javascript: [3.5, 5], quick: true },
  {
    name: "GPT medium, cpu",
    work: gpt("medium", "full"),
    backend: "cpu",
    javascript: [3.2, 5],
    pytorch: [0.55, 0.9],
    memory: { javascript: 3, pytorch: 1 },
    quick: true,
  },
  { name: "LoRA r8 on GPT medium, cpu", work: gpt("medium", "lora"), backend: "cpu", ...LORA },
  { name: "TL6 r8 on GPT medium, cpu", work: gpt("medium", "tl6"), backend: "cpu", ...LORA, quick: true },
  { name: "VeRA r8 on GPT medium, cpu", work: gpt("medium", "vera"), backend: "cpu", ...LORA },
  { name: "LSTM of 400 steps, cpu", work: { kind: "lstm", length: 400 }, backend: "cpu", pytorch: [1, 1] },
  { name: "GPT small, webgpu", work: gpt("small", "full"), ...WEBGPU },
  { name: "GPT medium, webgpu", work: gpt("medium", "full"), ...WEBGPU },
  { name: "LoRA r8 on GPT medium, webgpu", work: gpt("medium", "lora"), ...WEBGPU },
  { name: "TL6 r8 on GPT medium, webgpu", work: gpt("medium", "tl6"), ...WEBGPU },
];

/**
 * Times from the start of a process to the end of its first step; goals are ratios to the fastest peer in the same run: of a first start,
 * and of one that finds a filled cache.
 */
export const STARTS: readonly {
  readonly name: string;
  readonly work: Work;
  readonly backend: Task["backend"];
  readonly goal: number;
  readonly cachedGoal: number;
  readonly quick?: true;
}[] = [
  {
    name: "first step of a new process, GPT small, cpu",
    work: gpt("small", "full"),
    backend: "cpu",
    goal: 2,
    cachedGoal: 3,
    quick: true,
  },
  {
    name: "first step of a new process, GPT small, webgpu",
    work: gpt("small", "full"),
    backend: "webgpu",
    goal: 2,
    cachedGoal: 3,
  },
];

/**
 * The steps of a training whose batches have 64 lengths in turn, three of each: the whole time, compilation included. In JavaScript only the
 * first 16, each of another length: soon after, jax-js without `jit` has filled the 4 GiB that WebAssembly can address.
 */
export const MANY_LENGTHS = {
  name: "a training of 64 lengths, cpu",
  work: { kind: "gpt", size: { ...GPT.small, layers: 5, dim: 64, heads: 8 }, method: "tl6", many: true },
  steps: { javascript: 16, pytorch: 192 },
  javascript: 5,
  pytorch: 0.7,
} as const;

/** Time must grow linearly with the work: the goal for linear time ÷ our time. */
export const LINEAR = 0.9;

/** Pairs of sizes of one model, whose times are compared. */
export const GROWTHS: readonly { readonly name: string; readonly from: GptSize; readonly to: GptSize }[] = [
  {
    name: "growth, layers 2 to 12, cpu",
    from: { ...GPT.medium, layers: 2 },
    to: { ...GPT.medium, layers: 12 },
  },
  {
    name: "growth, tokens 128 to 1024, cpu",
    from: { ...GPT.medium, batch: 1, length: 128 },
    to: { ...GPT.medium, batch: 1, length: 1024 },
  },
];
