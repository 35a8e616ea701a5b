/** What is timed. A case builds its tensors once and gives a function that runs it once, to the end. */
import { type Device, grad, key, nn, optim, uniformArray, type Tensor } from "@tiedlora/core";
import { Classifier, Gpt, GPT_SIZES, type GptSize } from "./models.ts";

export interface Case {
  readonly name: string;
  /** Floating-point operations of one run, where they are what counts. */
  readonly flop?: number;
  /** Bytes that one run must read and write, where they are what counts. */
  readonly bytes?: number;
  readonly setup: (device: Device) => () => Promise<void>;
}

const random = (device: Device, shape: readonly number[], seed: number): Tensor => {
  const size = shape.reduce((a, b) => a * b, 1);
  return device.tensor(uniformArray(key(seed), size, -1, 1), { shape });
};
const parameter = (device: Device, shape: readonly number[], seed: number): nn.Parameter => {
  const size = shape.reduce((a, b) => a * b, 1);
  return nn.Parameter.from(device, uniformArray(key(seed), size, -1, 1), shape);
};
const ids = (device: Device, shape: readonly number[], below: number, seed: number): Tensor => {
  const size = shape.reduce((a, b) => a * b, 1);
  const values = Int32Array.from(uniformArray(key(seed), size, 0, below), Math.floor);
  return device.tensor(values, { shape, dtype: "i32" });
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

/** Times an optimizer's step: forward, backward and update, as one program. */
function step(name: string, flop: number, setup: (device: Device) => [nn.Module, () => Tensor]): Case {
  return {
    name,
    flop,
    setup: (device) => {
      const [model, loss] = setup(device);
      const optimizer = optim.adamW(model.parameters(), { lr: 1e-3 });
      return async () => {
        const value = loss();
        optimizer.step(value);
        await value.item();
      };
    },
  };
}

const matmul = (m: number, k: number, n: number, how: "" | "Aᵀ" | "Bᵀ" = ""): Case =>
  op(
    `matmul ${m}x${k}x${n} ${how}`.trim(),
    { flop: 2 * m * k * n },
    [how === "Aᵀ" ? [k, m] : [m, k], how === "Bᵀ" ? [n, k] : [k, n]],
    (a, b) => (how === "Aᵀ" ? a!.transpose() : a!).matmul(how === "Bᵀ" ? b!.transpose() : b!),
  );

/** Reduced to one row, so that what is timed is the operation and not the copying out of its result. */
const rows = (name: string, f: (x: Tensor) => Tensor): Case =>
  op(name, { bytes: 4 * 2048 * 2048 }, [[2048, 2048]], (x) => f(x!).sum(0));

const gradOf = (f: (x: Tensor) => Tensor): ((x: Tensor) => Tensor) => {
  return (x) => grad(f(x).square().sum(), [x])[0]!;
};

/** Multiplications and additions of a GPT's step: forward and twice that backward, attention in full. */
function gptFlop({ layers, dim, vocab, batch, length }: GptSize): number {
  const perToken = layers * (12 * dim * dim + 2 * length * dim) + dim * vocab;
  return 3 * 2 * perToken * batch * length;
}

const gpt = (name: keyof typeof GPT_SIZES): Case => {
  const size = GPT_SIZES[name];
  return step(`GPT ${name}, a training step`, gptFlop(size), (device) => {
    const model = new Gpt(size, device);
    const shape = [size.batch, size.length];
    const [x, y] = [ids(device, shape, size.vocab, 1), ids(device, shape, size.vocab, 2)];
    return [model, () => nn.crossEntropy(model.forward(x), y)];
  });
};

const classifier: Case = step("MLP 784-512-512-10, a training step", 0.51e9, (device) => {
  const model = new Classifier(device);
  const x = random(device, [128, 784], 1);
  const y = ids(device, [128], 10, 2);
  return [model, () => nn.crossEntropy(model.forward(x), y)];
});

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
  classifier,
  gpt("small"),
  gpt("medium"),
];
