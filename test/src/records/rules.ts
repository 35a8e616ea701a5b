/**
 * For every operation of the graph: the records that check its derivative rule, or why there are none. A new operation is a
 * compile error here until it is classified.
 */
import type { Op } from "@tiedlora/core";

/** The records that exercise a derivative rule, or why there is nothing to exercise. */
export type RuleCoverage = readonly string[] | { readonly none: string };

const LEAF: RuleCoverage = { none: "a leaf has no inputs" };
const JUMPS: RuleCoverage = { none: "constant between jumps" };
const INTEGER: RuleCoverage = { none: "of integers" };

/** The coverage of the derivative rule of each operation of the graph. */
export const RULES: { readonly [K in Op]: RuleCoverage } = {
  buffer: LEAF,
  data: LEAF,
  const: LEAF,
  scalar: LEAF,
  iota: LEAF,
  randomBits: { none: "random numbers depend on their key alone" },

  neg: ["neg", "sub"],
  exp: ["exp", "softmax"],
  expm1: ["expm1"],
  log: ["log", "logSumExp"],
  log1p: ["log1p", "softplus"],
  sqrt: ["sqrt"],
  rsqrt: ["rsqrt"],
  recip: ["reciprocal"],
  sin: ["sin"],
  cos: ["cos"],
  tanh: ["tanh", "gelu"],
  erf: ["erf", "gelu"],
  sigmoid: ["sigmoid"],
  silu: ["silu"],
  gelu: ["gelu"],
  geluTanh: ["gelu"],
  softplus: ["softplus"],
  abs: ["abs"],
  floor: JUMPS,
  not: INTEGER,

  add: ["add"],
  sub: ["sub"],
  mul: ["mul"],
  div: ["div"],
  mod: ["mod"],
  max: ["maximum"],
  min: ["minimum"],
  lt: JUMPS,
  le: JUMPS,
  eq: JUMPS,
  and: INTEGER,
  or: INTEGER,
  xor: INTEGER,
  shl: INTEGER,
  shr: INTEGER,
  where: ["where"],
  pow: ["pow"],
  cast: ["cast"],

  dequantize: { none: "quantized weights are frozen: asking for a gradient is an error" },

  reduceSum: ["sum"],
  reduceProd: ["prod"],
  reduceMax: ["max"],
  reduceMin: ["min"],

  reshape: ["reshape"],
  permute: ["permute", "transpose"],
  expand: ["expand"],
  slice: ["slice", "narrow"],
  pad: ["pad", "concat"],
  flip: ["flip"],
  concat: ["concat", "stack"],
  place: ["sliceScatter"],

  matmul: ["matmul"],
  attention: ["scaledDotProductAttention"],
  attentionGrad: ["scaledDotProductAttention"], // second order
  pick: { none: "hands its gradient to the node it picks from; attention goes through it" },
  gather: ["take", "gather"],
  scatterAdd: ["scatterAdd"],

  after: ["checkpoint"],
};
