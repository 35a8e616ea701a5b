/** Maps the names in recorded cases to calls: every operation of Tensor, and the functions and modules around it. */
import * as core from "@tiedlora/core";
import { Parameter, Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";

/** The members of Tensor that are not operations. */
type Other =
  "node" | "shape" | "dtype" | "rank" | "size" | "device" | "data" | "item" | "toArray" | "toString";
type Method = Exclude<keyof Tensor, Other>;

/** Calls an operation with tensors and constants in the order of its arguments. */
type Call = (...args: readonly unknown[]) => Tensor | readonly Tensor[];

/** All methods. A new method is a compile error until it is listed here; then a test requires cases for it. */
const METHODS: { readonly [K in Method]: true } = {
  add: true, sub: true, mul: true, div: true, mod: true, maximum: true, minimum: true, pow: true, logAddExp: true,
  lt: true, le: true, gt: true, ge: true, eq: true, ne: true, and: true, or: true, xor: true, not: true, isNaN: true,
  neg: true, exp: true, expm1: true, log: true, log1p: true, sqrt: true, rsqrt: true, reciprocal: true, sin: true, cos: true, tanh: true, erf: true,
  floor: true, abs: true, square: true, sign: true, sigmoid: true, relu: true, silu: true, softplus: true, gelu: true,
  clamp: true, cast: true, sum: true, prod: true, max: true, min: true, mean: true, variance: true, logSumExp: true,
  argmax: true, argmin: true, softmax: true, logSoftmax: true, cumsum: true,
  reshape: true, permute: true, transpose: true, expand: true, squeeze: true, unsqueeze: true, slice: true, narrow: true,
  pad: true, flip: true, split: true, tril: true, triu: true, matmul: true, take: true, gather: true, scatterAdd: true,
  oneHot: true, detach: true,
}; // prettier-ignore

function method(name: Method): Call {
  const call = Tensor.prototype[name] as (this: unknown, ...args: readonly unknown[]) => Tensor;
  return (self, ...rest) => call.apply(self, rest);
}

/** Wraps a function of this library, so that it can be called with the arguments of a case. */
const call = (f: (...args: never[]) => Tensor): Call => f as unknown as Call;

const weight = (x: unknown): Parameter => {
  if (x instanceof Parameter) return x;
  throw new TypeError("the case gives a tensor where a module takes a parameter");
};
const orNull = (x: unknown): Parameter | null => (x === null || x === undefined ? null : weight(x));
const linear = (w: unknown, b: unknown): nn.Linear => new nn.Linear(weight(w), orNull(b));

/** checkpoint((a, b) → tanh(a b) a), which is computed again in the backward pass. */
const checkpointed: Call = (x, y) =>
  core.checkpoint((a, b) => a.mul(b).tanh().mul(a), x as Tensor, y as Tensor);

function selfAttention(x: unknown, heads: unknown, ...w: readonly unknown[]): Tensor {
  const module = Object.create(nn.CausalSelfAttention.prototype) as nn.CausalSelfAttention;
  Object.assign(module, { heads, qkv: linear(w[0], w[1]), out: linear(w[2], w[3]), training: true });
  return module.forward(x as Tensor);
}

const FUNCTIONS = {
  where: call(core.where),
  concat: call(core.concat),
  stack: call(core.stack),
  einsum: call(nn.einsum),
  sliceScatter: call(nn.sliceScatter),
  conv2d: call(nn.conv2d),
  maxPool2d: call(nn.maxPool2d),
  avgPool2d: call(nn.avgPool2d),
  full: call(core.full),
  zeros: call(core.zeros),
  ones: call(core.ones),
  iota: call(core.iota),
  arange: call(core.arange),
  checkpoint: checkpointed,
  scaledDotProductAttention: (q, k, v, options, bias) =>
    nn.scaledDotProductAttention(q as Tensor, k as Tensor, v as Tensor, {
      ...(options as nn.AttentionOptions | undefined),
      ...(bias === undefined ? {} : { bias: bias as Tensor }),
    }),
  rope: call(nn.rope),
  splitHeads: call(nn.splitHeads),
  mergeHeads: call(nn.mergeHeads),
  layerNorm: call(nn.layerNorm),
  rmsNorm: call(nn.rmsNorm),
  binaryCrossEntropy: call(nn.binaryCrossEntropy),
  mse: call(nn.mse),
  crossEntropy: (logits, targets, options, mask) =>
    nn.crossEntropy(logits as Tensor, targets as Tensor, {
      ...(options as object | undefined),
      ...(mask === undefined ? {} : { mask: mask as Tensor }),
    }),
  Linear: (x, w, b, layout) =>
    new nn.Linear(weight(w), orNull(b), layout as nn.LinearLayout | undefined).forward(x as Tensor),
  Embedding: (ids, w) => new nn.Embedding(weight(w)).forward(ids as Tensor),
  LayerNorm: (x, w, b, eps) =>
    new nn.LayerNorm(weight(w), orNull(b), eps as number | undefined).forward(x as Tensor),
  RMSNorm: (x, w, eps) => new nn.RMSNorm(weight(w), eps as number | undefined).forward(x as Tensor),
  MLP: (x, activation, up, upBias, down, downBias) =>
    new nn.MLP(linear(up, upBias), linear(down, downBias), activation as nn.Activation).forward(x as Tensor),
  GatedMLP: (x, activation, gate, up, down) =>
    new nn.GatedMLP(
      linear(gate, null),
      linear(up, null),
      linear(down, null),
      activation as nn.Activation,
    ).forward(x as Tensor),
  CausalSelfAttention: selfAttention,
} satisfies { readonly [name: string]: Call };

/** By name: methods of Tensor first, then functions and modules. */
export const OPERATIONS: { readonly [name: string]: Call } = {
  ...Object.fromEntries(Object.keys(METHODS).map((name) => [name, method(name as Method)])),
  ...FUNCTIONS,
};
