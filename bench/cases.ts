/** What is timed. A case builds its tensors once and gives a function that runs it once, to the end. */
import { type Device, grad, key, nn, type Tensor, uniformArray } from "@tiedlora/core";
import { GPT, gptFlop, type GptName, type Method, type Work } from "./problems.ts";
import { prepare } from "./workloads.ts";

export interface Case {
  readonly name: string;
  /** Floating-point operations of one run, where they are what counts. */
  readonly flop?: number;
  /** Bytes that one run must read and write, where they are what counts. */
  readonly bytes?: number;
  readonly setup: (device: Device) => () => Promise<void>;
}

const parameter = (device: Device, shape: readonly number[], seed: number): nn.Parameter => {
  const size = shape.reduce((a, b) => a * b, 1);
  return nn.Parameter.from(device, uniformArray(key(seed), size, -1, 1), shape);
};
/** Times the evaluation of `f` on inputs that stay where they are; reading the result is part of the time. */
function op(
  name: string,
  cost: { flop?: number; bytes?: number },
  shapes: readonly (readonly number[])[],
  f: (...inputs: Tensor[]) => Tensor,
): Case {
  return {
    name,
    ...cost,
    setup: (device) => {
      const inputs = shapes.map((shape, i) => parameter(device, shape, i));
      return async () => void (await f(...inputs).data());
    },
  };
}

/** Times a whole training step, until its loss is known. */
function training(name: string, work: Work, flop: number): Case {
  return {
    name: `${name}, a training step`,
    flop,
    setup: (device) => {
      const prepared = prepare(device, work);
      let i = 0;
      return async () => void (await prepared.step(i++).item());
    },
  };
}

const matmul = (m: number, k: number, n: number, how: "" | "Aᵀ" | "Bᵀ" = ""): Case =>
  op(
    `matmul ${m}x${k}x${n} ${how}`.trim(),
    { flop: 2 * m * k * n },
    [how === "Aᵀ" ? [k, m] : [m, k], how === "Bᵀ" ? [n, k] : [k, n]],
    (a, b) => (how === "Aᵀ" ? a.transpose() : a).matmul(how === "Bᵀ" ? b.transpose() : b),
  );

/** Reduced to one row, so that what is timed is the operation and not the copying out of its result. */
const rows = (name: string, f: (x: Tensor) => Tensor): Case =>
  op(name, { bytes: 4 * 2048 * 2048 }, [[2048, 2048]], (x) => f(x).sum(0));

const gradOf = (f: (x: Tensor) => Tensor): ((x: Tensor) => Tensor) => {
  return (x) => grad(f(x).square().sum(), [x])[0]!;
};

const gpt = (size: GptName, method: Method): Case =>
  training(`GPT ${size}, ${method}`, { kind: "gpt", size, method }, gptFlop(GPT[size], method));

const mlpFlop = 3 * 2 * 128 * (784 * 512 + 512 * 512 + 512 * 10);

export const CASES: readonly Case[] = [
  matmul(512, 512, 512),
  matmul(1024, 384, 1536),
  matmul(1024, 384, 1536, "Bᵀ"),
  matmul(384, 1024, 1536, "Aᵀ"),
  matmul(1024, 384, 8),
  matmul(1024, 8, 1152),
  rows("sum", (x) => x),
  rows("gelu", (x) => x.gelu("tanh")),
  rows("softmax", (x) => x.softmax()),
  rows("layer norm", (x) => nn.layerNorm(x)),
  rows(
    "layer norm, its gradient",
    gradOf((x) => nn.layerNorm(x)),
  ),
  training("MLP 784-512-512-10", { kind: "mlp" }, mlpFlop),
  gpt("small", "full"),
  gpt("medium", "full"),
  gpt("medium", "lora"),
  gpt("medium", "tl6"),
  gpt("medium", "vera"),
];
