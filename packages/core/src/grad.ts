/** Reverse-mode differentiation: a table of rules, and the walk over a graph. Gradients are more nodes; nothing is computed. */
import { computeType, isFloat } from "@tiedlora/kernels";
import { activation, add, after, attentionGrad, attentionResults, binary, broadcastTo } from "./build.ts";
import { cast, constant, div, fill, flip, gather, iota, matmul, mul, neg, pad } from "./build.ts";
import { permute, place, pow, reduce, reshape, scale, scatterAdd, slice, square } from "./build.ts";
import { sub, sum, swapLast, unary, unbroadcast, where, within } from "./build.ts";
import { getOrCreate, list } from "@tiedlora/kernels/collections";
import type { ActivationOp, Attrs, Inputs, Node, Op, Range, Replay } from "./graph.ts";
import { isOp, renumbered, topological } from "./graph.ts";
import { composeAttentionGrad } from "./ops/attention.ts";
import { narrowRanges } from "./ops/indexing.ts";
import { total } from "./ops/joining.ts";
import { inverse, product } from "./shape.ts";
import { checkCurrent, type Storage } from "./storage.ts";

/**
 * Maps g = dL/dy to dL/dx for each input x of y = op(x), or to null where there is none. For nodes with several results, g is the
 * gradient of the first result, and `results` holds all gradients that exist, by the index of the result.
 */
export type Vjp<K extends Op> = (
  g: Node,
  y: Node,
  x: Inputs[K],
  attrs: Attrs[K],
  results: readonly Node[],
) => readonly (Node | null)[];

/** One rule per operation; "none" where the result does not depend smoothly on any input. */
export type VjpTable = { readonly [K in Op]: Vjp<K> | "none" };

/** 1 in the type of arithmetic on `x`. */
const one = (x: Node): Node => constant(1, computeType(x.dtype));
const zero = (x: Node): Node => constant(0, computeType(x.dtype));
const lt = (a: Node, b: Node): Node => binary("lt", a, b);
const eq = (a: Node, b: Node): Node => binary("eq", a, b);

/** Rounds toward zero. */
function truncate(x: Node): Node {
  return where(lt(x, zero(x)), neg(unary("floor", neg(x))), unary("floor", x));
}

/** Gradients of the larger (or smaller) of two: zero for the loser, half each in a tie; where one is NaN, both get all of g. */
function toWinner(g: Node, aLoses: Node, bLoses: Node, tie: Node): [Node, Node] {
  const kept = where(tie, scale(g, 0.5), g);
  return [where(aLoses, zero(g), kept), where(bLoses, zero(g), kept)];
}

/** The gradient of a maximum or minimum over `axes`: shared equally among all elements that attain it. */
function toExtremes(g: Node, y: Node, x: Node, axes: readonly number[]): Node {
  const attained = cast(eq(x, y), y.dtype);
  return mul(attained, div(g, sum(attained, axes)));
}

/** For each element, the product of all other elements along `axes`; exact also where some are zero. */
function productOfOthers(x: Node, axes: readonly number[]): Node {
  const kept = x.shape.flatMap((_, i) => (axes.includes(i) ? [] : [i]));
  const moved = permute(x, [...kept, ...axes]);
  const n = product(axes.map((i) => x.shape[i]!));
  const rows = product(kept.map((i) => x.shape[i]!));
  const all = broadcastTo(reshape(moved, [rows, 1, n]), [rows, n, n]);
  const self = eq(iota([n, n], 0), iota([n, n], 1));
  const others = reduce("reduceProd", where(self, one(x), all), [2]);
  return permute(reshape(others, moved.shape), inverse([...kept, ...axes]));
}

/** Puts the elements of a slice back in their places in `x`, with zeros elsewhere. */
function unslice(g: Node, x: Node, ranges: readonly Range[]): Node {
  const isPart = ranges.every(([, , step]) => step === 1);
  if (isPart) return pad(g, ranges.map(([start, stop], i) => [start, x.shape[i]! - stop])); // prettier-ignore
  // zeros between the elements: [n, ..] -> [n, 1, ..] -> [n, step, ..] -> [n · step, ..]
  const apart = reshape(g, g.shape.flatMap((n) => [n, 1])); // prettier-ignore
  const padded = pad(apart, ranges.flatMap(([, , step]) => [[0, 0], [0, step - 1]])); // prettier-ignore
  const spread = reshape(padded, ranges.map(([, , step], i) => g.shape[i]! * step)); // prettier-ignore
  // without the zeros after the last element, for which x may have no room
  const lengths = ranges.map(([, , step], i) => Math.max(0, (g.shape[i]! - 1) * step + 1));
  const fit = slice(spread, lengths.map((length) => [0, length, 1])); // prettier-ignore
  return pad(fit, ranges.map(([start], i) => [start, x.shape[i]! - start - lengths[i]!])); // prettier-ignore
}

/** The rule of an activation: the derivatives of every order are activations, too. */
const smooth =
  <K extends ActivationOp>(op: K): Vjp<K> =>
  (g, _y, [x], { order }) => [mul(g, activation(op, x, order + 1))];

/** The rules. Read as mathematics: `mul: (g, y, [a, b]) => [g·b, g·a]`. */
export const VJP: VjpTable = {
  buffer: "none",
  data: "none",
  const: "none",
  scalar: "none",
  iota: "none",
  randomBits: "none",

  neg: (g) => [neg(g)],
  exp: (g, y) => [mul(g, y)],
  expm1: (g, _y, [x]) => [mul(g, unary("exp", x))], // y + 1 would lose the digits of a small exp(x)
  log: (g, _y, [x]) => [div(g, x)],
  log1p: (g, _y, [x]) => [div(g, add(one(x), x))],
  sqrt: (g, y) => [div(scale(g, 0.5), y)],
  rsqrt: (g, y) => [mul(scale(g, -0.5), mul(y, square(y)))],
  recip: (g, y) => [neg(mul(g, square(y)))],
  sin: (g, _y, [x]) => [mul(g, unary("cos", x))],
  cos: (g, _y, [x]) => [neg(mul(g, unary("sin", x)))],
  tanh: (g, y) => [mul(g, sub(one(y), square(y)))],
  erf: (g, _y, [x]) => [mul(g, scale(unary("exp", neg(square(x))), 2 / Math.sqrt(Math.PI)))],
  sigmoid: smooth("sigmoid"),
  silu: smooth("silu"),
  gelu: smooth("gelu"),
  geluTanh: smooth("geluTanh"),
  softplus: smooth("softplus"),
  abs: (g, _y, [x]) => [where(lt(x, zero(x)), neg(g), where(lt(zero(x), x), g, zero(g)))],
  floor: "none",
  not: "none",

  add: (g) => [g, g],
  sub: (g) => [g, neg(g)],
  mul: (g, _y, [a, b]) => [mul(g, b), mul(g, a)],
  div: (g, y, [, b]) => [div(g, b), neg(mul(g, div(y, b)))],
  mod: (g, _y, [a, b]) => [g, neg(mul(g, truncate(div(a, b))))],
  max: (g, _y, [a, b]) => toWinner(g, lt(a, b), lt(b, a), eq(a, b)),
  min: (g, _y, [a, b]) => toWinner(g, lt(b, a), lt(a, b), eq(a, b)),
  lt: "none",
  le: "none",
  eq: "none",
  and: "none",
  or: "none",
  xor: "none",
  shl: "none",
  shr: "none",
  where: (g, _y, [c]) => [null, where(c, g, zero(g)), where(c, zero(g), g)],
  pow: (g, y, [a, b]) => {
    const toA = where(eq(b, zero(b)), zero(g), mul(b, pow(a, sub(b, one(b)))));
    const flat = binary("and", eq(a, zero(a)), binary("le", zero(b), b));
    return [mul(g, toA), mul(g, where(flat, zero(g), mul(y, unary("log", a))))];
  },
  cast: (g, _y, [x]) => [isFloat(x.dtype) ? cast(g, computeType(x.dtype)) : null],

  reduceSum: (g, _y, [x]) => [broadcastTo(g, x.shape)],
  reduceProd: (g, _y, [x], { axes }) => [mul(g, productOfOthers(x, axes))],
  reduceMax: (g, y, [x], { axes }) => [toExtremes(g, y, x, axes)],
  reduceMin: (g, y, [x], { axes }) => [toExtremes(g, y, x, axes)],

  reshape: (g, _y, [x]) => [reshape(g, x.shape)],
  permute: (g, _y, _x, { order }) => [permute(g, inverse(order))],
  expand: (g, _y, [x]) => [unbroadcast(g, x.shape)],
  slice: (g, _y, [x], { ranges }) => [unslice(g, x, ranges)],
  pad: (g, _y, [x], { widths }) => {
    const ranges = widths.map(([before], i): Range => [before, before + x.shape[i]!, 1]);
    return [slice(g, ranges)];
  },
  flip: (g, _y, _x, { axes }) => [flip(g, axes)],
  concat: (g, _y, x, { axis }) => {
    let end = 0;
    const part = (n: number): Node => slice(g, narrowRanges(g.shape, axis, (end += n) - n, n));
    return x.map(({ shape }) => part(shape[axis]!));
  },
  dequantize: () => {
    throw new TypeError(
      "grad: the scales and biases of a quantized weight are frozen; train an adapter on it",
    );
  },
  place: (g, _y, [, values], { axis, starts }) => {
    const range = narrowRanges(g.shape, axis, starts[0]!, values!.shape[axis]!);
    return [place(g, fill(0, values!.shape, g.dtype), axis, starts[0]!), slice(g, range)];
  },

  matmul: (g, _y, [a, b]) => [matmul(g, swapLast(b)), matmul(swapLast(a), g)],
  // The gradient kernel takes the normalizers L as constants: dQ and dK already include the gradient through L.
  attention: (g, y, x, attrs) => {
    const [q, k, v, ...bias] = x;
    const inputs = [q, k, v, ...bias, ...attentionResults(y), g] as const;
    const grads = attentionGrad(inputs, attrs);
    return bias.length > 0 ? [...grads, composeAttentionGrad(inputs, attrs)[3]] : grads;
  },
  attentionGrad: (_g, _y, x, attrs, results) => secondOrderAttention(x, attrs, results),
  pick: "none", // the walk hands its gradient to the node it picks from
  gather: (g, _y, [table, index]) => [scatterAdd(index, g, table.shape[0]!), null],
  scatterAdd: (g, y, [index, values]) => {
    const inRange = within(index, y.shape[0]!);
    return [null, where(reshape(inRange, [values.shape[0]!, 1]), gather(g, index), zero(g))];
  },
  after: (g) => [g, null],
};

/** Differentiates the gradient of attention by composing it from primitives, in which O and L are functions of Q, K and V. */
function secondOrderAttention(
  x: Inputs["attentionGrad"],
  attrs: Attrs["attentionGrad"],
  results: readonly Node[],
): (Node | null)[] {
  const [inputs, dO] = [x.slice(0, -3), x.at(-1)!];
  const composed = composeAttentionGrad(x, attrs);
  const roots = results.flatMap((g, i): [Node, Node][] => [[composed[i]!, g]]); // skips missing gradients
  const found = backpropagate(roots, new Set([...inputs, dO]), "stop");
  return x.map((input, i) => (i < inputs.length || input === dO ? (found.get(input) ?? null) : null));
}

const NOTHING: readonly Node[] = [];

/** The inputs along which gradients can flow. */
function differentiable(node: Node): readonly Node[] {
  if (node.gradient === "stop") return NOTHING;
  if (node.gradient && "vjp" in node.gradient) return node.gradient.inputs;
  const inputs = (node.origin ?? node).inputs;
  return node.op === "after" ? inputs.slice(0, 1) : inputs;
}

/**
 * Gradients of Σ root·cotangent with respect to `targets`, of those that have one; with "stop", the walk ends at the targets. Only
 * nodes on a path to a target get gradients, so frozen parameters cost nothing.
 * Throws if a root was built on a target's memory before its last update: no path ends in the target as it is now.
 */
function backpropagate(
  roots: readonly (readonly [Node, Node])[],
  targets: ReadonlySet<Node>,
  atTargets: "stop" | "continue",
): Map<Node, Node> {
  const stops = (node: Node): boolean => atTargets === "stop" && targets.has(node);
  const order = topological(
    roots.map(([root]) => root),
    (node) => (stops(node) ? NOTHING : differentiable(node)),
  );
  let walk = order[0]!.walk;
  /** By position: the gradient of a node, or the terms of which it is the sum; null if there is none, undefined off all paths. */
  const found: (Node | Node[] | null | undefined)[] = [];
  const onPath = (node: Node): boolean => node.walk === walk && found[node.position] !== undefined;
  const memories = new Set<Storage>();
  if (atTargets === "continue")
    for (const target of targets) if (isOp(target, "buffer")) memories.add(target.attrs.storage);
  for (const node of order) {
    if (isOp(node, "buffer") && memories.has(node.attrs.storage)) checkCurrent(node.attrs);
    found.push(targets.has(node) || differentiable(node).some(onPath) ? null : undefined);
  }
  const results = new Map<Node, Node[]>(); // gradients of nodes with several results, by the index of the result
  const accumulate = (node: Node, g: Node | null | undefined): void => {
    walk = renumbered(order, walk); // a rule may walk as well
    if (!g || !onPath(node)) return;
    const before = found[node.position];
    if (Array.isArray(before)) before.push(g);
    else found[node.position] = before ? list(before, g) : g;
  };
  for (const [root, g] of roots) accumulate(root, g);

  for (let at = order.length - 1; at >= 0; at--) {
    const node = order[at]!;
    const terms = found[at];
    const g = Array.isArray(terms) ? (found[at] = total(terms)) : terms;
    const parts = results.get(node);
    if (stops(node) || (!g && !parts)) continue;
    if (node.gradient !== null && node.gradient !== "stop") {
      const { gradient } = node;
      if ("vjp" in gradient) gradient.vjp(g!).forEach((part, i) => accumulate(gradient.inputs[i]!, part));
      else for (const [inner, part] of replayed(gradient, g!, new Set(order))) accumulate(inner, part);
      continue;
    }
    const { op, attrs, inputs } = node.origin ?? node;
    if (op === "pick") {
      getOrCreate(results, inputs[0], () => [])[(attrs as Attrs["pick"]).index] = g!;
      continue;
    }
    const rule = VJP[op] as Vjp<Op> | "none";
    if (rule === "none") continue;
    const first = g ?? parts?.[0] ?? fill(0, node.shape, node.dtype);
    const toInputs = rule(first, node, inputs, attrs, parts ?? NOTHING);
    for (let i = 0; i < inputs.length; i++) accumulate(inputs[i]!, toInputs[i]);
  }
  walk = renumbered(order, walk);
  const ofTarget = (node: Node): [Node, Node][] =>
    onPath(node) && found[node.position] ? [[node, found[node.position] as Node]] : [];
  return new Map([...targets].flatMap(ofTarget));
}

/**
 * Gradients of a checkpointed value: its region is computed again, after `g`, and differentiated. Throws if the region reads
 * memory that has been updated since the value was first computed.
 */
function replayed(replay: Replay, g: Node, outer: ReadonlySet<Node>): Map<Node, Node> {
  const inputs = replay.inputs.map((x) => after(x, g));
  const again = replay.run(inputs);
  for (const node of topological([again], (x) => (x.op === "after" ? NOTHING : x.inputs)))
    if (isOp(node, "buffer") && node.attrs.version > replay.made)
      checkCurrent({ ...node.attrs, version: replay.made });
  return backpropagate([[again, g]], outer, "stop");
}

/** The derivative of each element of `y` with respect to the element of `x` that it is a function of. */
export function derivative(y: Node, x: Node): Node {
  const found = backpropagate([[y, fill(1, y.shape, y.dtype)]], new Set([x]), "stop").get(x);
  return found ?? fill(0, x.shape, x.dtype);
}

/** Gradients of Σ root·cotangent with respect to `targets`; null for a target that no root depends on. */
export function gradients(
  roots: readonly (readonly [Node, Node])[],
  targets: readonly Node[],
): (Node | null)[] {
  const found = backpropagate(roots, new Set(targets), "continue");
  return targets.map((target) => found.get(target) ?? null);
}
