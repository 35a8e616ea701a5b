/** Attention and its gradient in primitive nodes. Grouped queries: heads are viewed as [kvHeads, heads / kvHeads]. */
import { add, binary, broadcastTo, constant, div, iota, matmul, mul, reduce, reshape } from "../build.ts";
import { scale, sub, sum, swapLast, unary, where } from "../build.ts";
import type { Attrs, Inputs, Node, Shape } from "../graph.ts";

interface Grouped {
  readonly q: Node; // [batch, kvHeads, group, q, d]
  readonly k: Node; // [batch, kvHeads, 1, kv, d]
  readonly v: Node;
  readonly p: Node; // probabilities [batch, kvHeads, group, q, kv]
  readonly logSum: Node; // [batch, kvHeads, group, q, 1]
}

const splitHeads = (x: Node, kvHeads: number): Node =>
  reshape(x, [x.shape[0]!, kvHeads, x.shape[1]! / kvHeads, ...x.shape.slice(2)]);

const oneGroup = (x: Node): Node => reshape(x, [x.shape[0]!, x.shape[1]!, 1, ...x.shape.slice(2)]);

/** Where query i may see key j: j <= i + kv - q. */
function causalMask(shape: Shape): Node {
  const [q, kv] = [shape.at(-2)!, shape.at(-1)!];
  const last = add(iota([q, kv], 0), constant(kv - q, "i32"));
  return broadcastTo(binary("le", iota([q, kv], 1), last), shape);
}

function probabilities(
  [Q, K, V, bias]: Inputs["attention"],
  { causal, scale: factor }: Attrs["attention"],
): Grouped {
  const kvHeads = K.shape[1]!;
  const [q, k, v] = [splitHeads(Q, kvHeads), oneGroup(K), oneGroup(V)];
  let scores = scale(matmul(q, swapLast(k)), factor);
  if (bias) scores = add(scores, splitHeads(bias, kvHeads));
  if (causal) scores = where(causalMask(scores.shape), scores, constant(-1e30, scores.dtype));
  const max = reduce("reduceMax", scores, [4]);
  const e = unary("exp", sub(scores, max));
  const total = sum(e, [4]);
  return { q, k, v, p: div(e, total), logSum: add(max, unary("log", total)) };
}

/** [O, L] of `attention` nodes. */
export function composeAttention(inputs: Inputs["attention"], attrs: Attrs["attention"]): [O: Node, L: Node] {
  const { p, v, logSum } = probabilities(inputs, attrs);
  const { shape } = inputs[0];
  return [reshape(matmul(p, v), shape), reshape(logSum, shape.slice(0, -1))];
}

/** [dQ, dK, dV, dBias] of `attentionGrad` nodes; dBias is given even if there was no bias. */
export function composeAttentionGrad(
  inputs: Inputs["attentionGrad"],
  attrs: Attrs["attention"],
): [dQ: Node, dK: Node, dV: Node, dBias: Node] {
  const [Q, K, V] = inputs;
  const { q, k, v, p } = probabilities(inputs.slice(0, -3) as unknown as Inputs["attention"], attrs);
  const g = splitHeads(inputs.at(-1)!, K.shape[1]!);
  const dp = matmul(g, swapLast(v));
  const ds = mul(p, sub(dp, sum(mul(p, dp), [4])));
  const dq = scale(matmul(ds, k), attrs.scale);
  const dk = sum(scale(matmul(swapLast(ds), q), attrs.scale), [2]);
  const dv = sum(matmul(swapLast(p), g), [2]);
  const heads = [Q.shape[0]!, Q.shape[1]!, Q.shape[2]!, K.shape[2]!];
  return [reshape(dq, Q.shape), reshape(dk, K.shape), reshape(dv, V.shape), reshape(ds, heads)];
}
