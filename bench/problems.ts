/**
 * The work for all frameworks: sizes, data and initial values. The numbers are hashes of integers, so that every peer starts
 * from the same bits, and losses can be compared before times.
 */

/** 32-bit hashes of `n` successive integers; `seed` determines the first. */
export function hashes(n: number, seed: number): Uint32Array {
  const out = new Uint32Array(n);
  const offset = Math.imul(seed, 0x9e3779b9) >>> 0;
  for (let i = 0; i < n; i++) {
    let x = (i + offset) >>> 0;
    x ^= x >>> 16;
    x = Math.imul(x, 0x7feb352d);
    x ^= x >>> 15;
    x = Math.imul(x, 0x846ca68b);
    x ^= x >>> 16;
    out[i] = x >>> 0;
  }
  return out;
}

/** Uniform f32 in [-bound, bound). */
export function uniform(n: number, seed: number, bound = 1): Float32Array {
  return Float32Array.from(hashes(n, seed), (h) => (((h >>> 8) / 16777216) * 2 - 1) * bound);
}

export interface GptSize {
  readonly layers: number;
  readonly dim: number;
  readonly heads: number;
  readonly vocab: number;
  readonly batch: number;
  readonly length: number;
}

export type GptName = "small" | "medium";
export const GPT: { readonly [S in GptName]: GptSize } = {
  small: { layers: 4, dim: 128, heads: 4, vocab: 512, batch: 8, length: 128 },
  medium: { layers: 6, dim: 384, heads: 6, vocab: 4096, batch: 4, length: 256 },
};
/** What is trained: all weights, or an adapter on a frozen model. */
export type Method = "full" | "lora" | "tl6" | "vera";
export type Work =
  | { readonly kind: "mlp" }
  /** An LSTM over `length` steps of LSTM.width numbers, which is read step by step; the steps are along the first axis, or along the second. */
  | { readonly kind: "lstm"; readonly length: number; readonly batchFirst?: true }
  /** `many`: batches of 64 lengths, up to that of the size, in turn. */
  | { readonly kind: "gpt"; readonly size: GptName | GptSize; readonly method: Method; readonly many?: true };

/** The length of batch `i` of 64: 65 to 128, in no order. */
const lengthAt = (i: number): number => 65 + ((i * 37) % 64);

/** The sizes of the batches of a GPT, which are repeated. */
export function batchSizes({ size, many }: Work & { readonly kind: "gpt" }): readonly GptSize[] {
  const whole = sizeOf(size);
  if (many !== true) return Array.from({ length: 16 }, () => whole);
  return Array.from({ length: 64 }, (_, i) => ({ ...whole, length: lengthAt(i) }));
}

export const sizeOf = (size: GptName | GptSize): GptSize => (typeof size === "string" ? GPT[size] : size);

/**
 * Floating-point operations of a GPT's training step, with attention counted in full. If the base is frozen, each of its
 * weights takes one product less.
 */
export function gptFlop({ layers, dim, vocab, batch, length }: GptSize, method: Method): number {
  const weights = layers * 12 * dim * dim + dim * vocab;
  const attention = layers * 2 * length * dim;
  return 2 * batch * length * ((method === "full" ? 3 : 2) * weights + 3 * attention);
}

export const ADAMW = { lr: 1e-3, betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0.1 } as const;
export const LORA = { rank: 8, alpha: 16, lr: 1e-3 } as const;
export const MLP_LAYERS: readonly number[] = [784, 512, 512, 10];

/** Inputs and targets of one step, [batch * length] each: a noisy affine Markov chain. */
export function tokens(step: number, { batch, length, vocab }: GptSize): { x: Int32Array; y: Int32Array } {
  const h = hashes(batch * (length + 1), 1000 + step);
  const [x, y] = [new Int32Array(batch * length), new Int32Array(batch * length)];
  for (let b = 0; b < batch; b++) {
    let token = h[b * (length + 1)]! % vocab;
    for (let i = 0; i < length; i++) {
      x[b * length + i] = token;
      token = (token * 7 + 3 + (h[b * (length + 1) + i + 1]! % 4)) % vocab;
      y[b * length + i] = token;
    }
  }
  return { x, y };
}

export function mlpBatch(step: number, batch = 128): { x: Float32Array; y: Int32Array } {
  return {
    x: uniform(batch * 784, 5000 + step),
    y: Int32Array.from(hashes(batch, 6000 + step), (h) => h % 10),
  };
}

/** A parameter's name, shape and initial values: all 1, all 0, or uniform in [-bound, bound) for a number. */
export type Init = readonly [name: string, shape: readonly number[], values: "one" | "zero" | number];

export function gptInit({ dim: d, vocab, length, layers }: GptSize): Init[] {
  const a = 0.02 * Math.sqrt(3);
  const list: Init[] = [
    ["wte", [vocab, d], a],
    ["wpe", [length, d], a],
  ];
  for (let l = 0; l < layers; l++) {
    list.push([`${l}.ln1g`, [d], "one"], [`${l}.ln1b`, [d], "zero"]);
    list.push([`${l}.wqkv`, [d, 3 * d], a], [`${l}.bqkv`, [3 * d], "zero"]);
    list.push([`${l}.wo`, [d, d], a], [`${l}.bo`, [d], "zero"]);
    list.push([`${l}.ln2g`, [d], "one"], [`${l}.ln2b`, [d], "zero"]);
    list.push([`${l}.w1`, [d, 4 * d], a], [`${l}.b1`, [4 * d], "zero"]);
    list.push([`${l}.w2`, [4 * d, d], a], [`${l}.b2`, [d], "zero"]);
  }
  list.push(["lnfg", [d], "one"], ["lnfb", [d], "zero"]);
  return list;
}

/** A factor of an adapter: its initial values, and whether it is trained. */
export interface Factor {
  readonly init: Init;
  readonly trained: boolean;
}

/**
 * The factors A [dim, rank], B [rank, 3 dim], u [rank], v [3 dim] of a method; a factor named "3.A" belongs to layer 3,
 * one named "A" is tied across all layers. They add (x A ⊙ u) B ⊙ v · alpha / rank to a layer's fused q, k, v projection.
 */
export function adapterInit({ dim: d, layers }: GptSize, method: Method): Factor[] {
  const factor = (name: string, shape: number[], values: Init[2], trained = true): Factor => ({
    init: [name, shape, values],
    trained,
  });
  const r = LORA.rank;
  const bound = Math.sqrt(3 / d) * 0.5;
  const perLayer = (f: (l: number) => Factor[]): Factor[] =>
    Array.from({ length: layers }, (_, l) => f(l)).flat();
  switch (method) {
    case "full":
      return [];
    case "lora":
      return perLayer((l) => [factor(`${l}.A`, [d, r], bound), factor(`${l}.B`, [r, 3 * d], "zero")]);
    case "tl6":
      return [
        factor("A", [d, r], bound),
        factor("B", [r, 3 * d], "zero"),
        ...perLayer((l) => [factor(`${l}.u`, [r], "one"), factor(`${l}.v`, [3 * d], "one")]),
      ];
    case "vera":
      return [
        factor("A", [d, r], bound, false),
        factor("B", [r, 3 * d], bound, false),
        ...perLayer((l) => [factor(`${l}.u`, [r], "one"), factor(`${l}.v`, [3 * d], "zero")]),
      ];
  }
}

/** The width of an LSTM and of its inputs, the rows of a batch, and the classes that it tells apart. */
export const LSTM = { width: 64, batch: 16, classes: 10 } as const;

/** Inputs [length, batch, width] and classes [batch] of one step. */
export function lstmBatch(step: number, length: number): { x: Float32Array; y: Int32Array } {
  const { batch, width, classes } = LSTM;
  return {
    x: uniform(length * batch * width, 7000 + step),
    y: Int32Array.from(hashes(batch, 8000 + step), (h) => h % classes),
  };
}

export function lstmInit(): Init[] {
  const { width: d, classes } = LSTM;
  const bound = 1 / Math.sqrt(d);
  return [
    ["wx", [d, 4 * d], bound],
    ["wh", [d, 4 * d], bound],
    ["b", [4 * d], bound],
    ["wo", [d, classes], bound],
    ["bo", [classes], "zero"],
  ];
}

export function mlpInit(): Init[] {
  return MLP_LAYERS.slice(0, -1).flatMap((fanIn, i): Init[] => [
    [`w${i}`, [fanIn, MLP_LAYERS[i + 1]!], Math.sqrt(1 / fanIn)],
    [`b${i}`, [MLP_LAYERS[i + 1]!], "zero"],
  ]);
}

/** The initial values of the `index`-th parameter of a list. */
export function initialValues([, shape, values]: Init, index: number): Float32Array {
  const n = shape.reduce((a, b) => a * b, 1);
  if (values === "zero") return new Float32Array(n);
  return values === "one" ? new Float32Array(n).fill(1) : uniform(n, index + 1, values);
}
