/** The cases that are timed. A case builds its tensors once, and returns a function that runs it once and waits for its end. */
import { assign, type Device, grad, key, Parameter, type Tensor, uniformArray } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";
import { configFrom, createModel, generateTokens } from "@tiedlora/models";
import { GPT, gptFlop, type GptName } from "./problems.ts";
import { type Method, prepare, type Work } from "./workloads.ts";

export interface Case {
  readonly name: string;
  /** Floating-point operations of one run, where these limit the speed. */
  readonly flop?: number;
  /** Bytes that one run must read and write, where these limit the speed. */
  readonly bytes?: number;
  /** Tokens that one run generates, where the rate is in tokens per second. */
  readonly tokens?: number;
  readonly setup: (device: Device) => () => Promise<void>;
}

type Shape = readonly number[];

const product = (shape: Shape): number => shape.reduce((a, b) => a * b, 1);

const parameter = (device: Device, shape: Shape, seed: number): Parameter =>
  Parameter.from(device, uniformArray(key(seed), product(shape), -1, 1), shape);

interface Cost {
  readonly flop?: number;
  readonly bytes?: number;
}

/**
 * Computes the tensors that `f` returns, and stores them in memory that the first run allocates: new memory would cost a
 * page fault per page. The results stay on the device, so that copying is not timed either.
 */
function into(device: Device, f: () => readonly Tensor[]): () => Promise<void> {
  let targets: Parameter[] | null = null;
  return async () => {
    const results = f();
    targets ??= results.map(({ shape }) => Parameter.from(device, new Float32Array(product(shape)), shape));
    assign(results.map((result, i) => [targets![i]!, result] as const));
    await device.sync();
  };
}

/** Times the evaluation of `f` on inputs that stay on the device. */
function op(
  name: string,
  cost: Cost,
  shapes: readonly Shape[],
  f: (...inputs: Tensor[]) => Tensor | readonly Tensor[],
): Case {
  return {
    name,
    ...cost,
    setup: (device) => {
      const inputs = shapes.map((shape, i) => parameter(device, shape, i));
      return into(device, () => {
        const results = f(...inputs);
        return Array.isArray(results) ? (results as readonly Tensor[]) : [results as Tensor];
      });
    },
  };
}

/** Times a whole training step, until its loss is known. */
function training(name: string, work: Work, flop: number): Case {
  return {
    name: `${name}, a training step`,
    flop,
    setup: (device) => {
      const workload = prepare(device, work);
      let i = 0;
      return async () => void (await workload.step(i++).item());
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

/** How the weights of a product are stored. */
type Stored = "bf16" | "nf4" | "int8";

/** A weight [out, in] with arbitrary numbers. */
function storedWeight(device: Device, stored: Stored, shape: [number, number], seed: number): Parameter {
  const size = product(shape);
  if (stored === "bf16") {
    const bits = Uint16Array.from({ length: size }, (_, i) => 0x3c00 + ((i * 7919 + seed) % 256));
    return Parameter.from(device, bits, shape, "bf16");
  }
  const form = stored === "nf4" ? ({ bits: 4, table: "nf4" } as const) : ({ bits: 8, table: "signed" } as const); // prettier-ignore
  const words = Uint32Array.from({ length: (size * form.bits) / 32 }, (_, i) =>
    Math.imul(i + seed, 2654435761),
  );
  const scales = new Float32Array(size / 64).fill(0.01);
  return nn.QuantizedParameter.fromValues(device, { ...form, group: 64, shape, words, scales });
}

/**
 * Products of some rows with four weights of a model of 1.1 billion parameters, one after another. With one row, as in generation, the
 * weights are read from memory, and their bytes limit the speed.
 */
function weights(rows: number, stored: Stored): Case {
  const [out, width, count] = [5632, 2048, 4] as const;
  const bytesOfOne = { bf16: 2, nf4: 0.5 + 4 / 64, int8: 1 + 4 / 64 }[stored];
  const cost: Cost =
    rows === 1 ? { bytes: count * out * width * bytesOfOne } : { flop: 2 * rows * out * width * count };
  return {
    name: `${rows} ${rows === 1 ? "row" : "rows"} times 4 weights ${out}x${width} in ${stored}`,
    ...cost,
    setup: (device) => {
      const x = parameter(device, [rows, width], 1);
      const all = Array.from({ length: count }, (_, i) => storedWeight(device, stored, [out, width], i));
      return into(device, () => all.map((weight, i) => x.mul(i + 1).matmul(weight.transpose())));
    },
  };
}

const SIDE = 2048;
/** An operation on rows that reads and writes `arrays` arrays of the size of its input, in total. */
const rows = (name: string, arrays: number, f: (x: Tensor) => Tensor): Case =>
  op(name, { bytes: arrays * 4 * SIDE * SIDE }, [[SIDE, SIDE]], (x) => f(x));

/** The gradient of an operation, given the gradient of its result. */
const gradientOf = (name: string, f: (x: Tensor) => Tensor): Case =>
  op(name, { bytes: 3 * 4 * SIDE * SIDE }, [[SIDE, SIDE], [SIDE, SIDE]], (x, g) => grad(f(x).mul(g).sum(), [x])); // prettier-ignore

/** Causal attention as in a transformer of GPT-2's size; operations on the masked half are not counted. */
function attention(name: string, products: number, withGradient: boolean): Case {
  const [batch, heads, length, d] = [4, 12, 512, 64] as const;
  const shape = [batch, heads, length, d];
  const flop = (products * 2 * batch * heads * length * length * d) / 2;
  return op(name, { flop }, [shape, shape, shape, shape], (q, k, v, g) => {
    const out = nn.scaledDotProductAttention(q, k, v, { causal: true });
    return withGradient ? grad(out.mul(g).sum(), [q, k, v]) : out;
  });
}

function embeddingGradient(): Case {
  const [vocab, width, count] = [32_000, 512, 2048];
  return {
    name: "embedding gradient 2048 of 32000x512",
    bytes: 4 * (vocab + count) * width,
    setup: (device) => {
      const table = parameter(device, [vocab, width], 1);
      const weights = parameter(device, [count, width], 2);
      const ids = device.tensor(Int32Array.from({ length: count }, (_, i) => (i * 7919) % vocab));
      return into(device, () => grad(table.take(ids).mul(weights).sum(), [table]));
    },
  };
}

function adamw(): Case {
  const n = 4_000_000;
  return {
    name: "AdamW on 4 million parameters",
    bytes: 7 * 4 * n, // the parameter and two moments are read and written, the gradient is read
    setup: (device) => {
      const weights = parameter(device, [n], 1);
      const slopes = parameter(device, [n], 2);
      const optimizer = optim.adamW([weights], { lr: 1e-3 });
      return async () => {
        optimizer.step(weights.mul(slopes.detach()).sum());
        await device.sync();
      };
    },
  };
}

const gpt = (size: GptName, method: Method): Case =>
  training(`GPT ${size}, ${method}`, { kind: "gpt", size, method }, gptFlop(GPT[size], method));

/** A Llama with 25 million parameters continues a prompt of 16 tokens with 64 more, using a cache of keys and values. */
function generation(): Case {
  const tokens = 64;
  const config = configFrom({
    model_type: "llama",
    vocab_size: 8192,
    hidden_size: 512,
    intermediate_size: 1408,
    num_hidden_layers: 6,
    num_attention_heads: 8,
    num_key_value_heads: 4,
    max_position_embeddings: 256,
    rms_norm_eps: 1e-5,
  });
  return {
    name: "generation, Llama of 25 M",
    tokens,
    setup: (device) => {
      const model = createModel(config, { device, seed: 1 });
      const prompt = Array.from({ length: 16 }, (_, i) => 17 * i + 3);
      return async () => {
        let count = 0;
        for await (const _ of generateTokens(model, [prompt], { maxTokens: tokens, stopTokens: [] })) count++;
        if (count !== tokens) throw new Error(`generated ${count} tokens instead of ${tokens}`);
      };
    },
  };
}

const mlpFlop = 3 * 2 * 128 * (784 * 512 + 512 * 512 + 512 * 10);

export const CASES: readonly Case[] = [
  matmul(512, 512, 512),
  matmul(1024, 1024, 1024),
  matmul(1024, 384, 1536),
  matmul(1024, 384, 1536, "Bᵀ"),
  matmul(384, 1024, 1536, "Aᵀ"),
  matmul(1024, 384, 8),
  matmul(1024, 8, 1152),
  matmul(8, 1024, 1152, "Aᵀ"),
  matmul(1, 1024, 4096, "Bᵀ"),
  ...([1, 128] as const).flatMap((m) =>
    (["bf16", "nf4", "int8"] as const).map((stored) => weights(m, stored)),
  ),
  rows("sum of all", 1, (x) => x.sum()),
  rows("sum over rows", 1, (x) => x.sum(1)),
  rows("sum over columns", 1, (x) => x.sum(0)),
  rows("gelu", 2, (x) => x.gelu("tanh")),
  rows("softmax", 2, (x) => x.softmax()),
  gradientOf("softmax gradient", (x) => x.softmax()),
  rows("layer norm", 2, (x) => nn.layerNorm(x)),
  gradientOf("layer norm gradient", (x) => nn.layerNorm(x)),
  attention("attention 4x12x512x64, causal", 2, false),
  attention("attention 4x12x512x64, causal, with gradient", 7, true),
  embeddingGradient(),
  adamw(),
  training("MLP 784-512-512-10", { kind: "mlp" }, mlpFlop),
  gpt("small", "full"),
  gpt("medium", "full"),
  gpt("medium", "lora"),
  gpt("medium", "tl6"),
  gpt("medium", "vera"),
  generation(),
];
