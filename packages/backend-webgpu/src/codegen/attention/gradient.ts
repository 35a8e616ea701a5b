/** The gradient of attention as WGSL; it recomputes the probabilities from the saved log-sum. */
import type { AttentionParams, Instr, LoopKernel, Operand } from "@tiedlora/kernels";
import { literal } from "../arithmetic.ts";
import type { Buffers } from "../buffers.ts";
import { renderLoop } from "../loop.ts";
import { type Kernel, range, type Target } from "../target.ts";
import {
  AttentionKernel,
  type CallOf,
  keyEnd,
  keysPass,
  type Named,
  operandsOf,
  place,
  queriesPass,
  scores,
  TILE,
} from "./kernel.ts";

/**
 * The gradients, in three kernels: the first computes what the others need of each query; in the second, invocations own
 * queries; in the third, they own keys. The first also copies the log-sums next to its sums, so that no kernel binds more
 * than eight buffers, which every device allows.
 */
export function renderAttentionGrad(
  call: CallOf<"attentionGrad">,
  buffers: Buffers,
  target: Target,
): Kernel[] {
  const p = call.params;
  const named = operandsOf(call);
  const lengths = [p.batch, p.heads, p.q];
  const scratch = buffers.scratch(8 * p.batch * p.heads * p.q);
  const row = (offset: number): Operand => ({
    buffer: scratch,
    dtype: "f32",
    view: { offset, strides: [2 * p.heads * p.q, 2 * p.q, 1] },
  });
  const prepared: Named[] = [
    { name: "logSum", operand: row(0), lengths, write: false },
    { name: "delta", operand: row(p.q), lengths, write: false },
  ];
  const rest = (...keys: string[]): Named[] => [...without(named, "result", "logSum", ...keys), ...prepared];
  return [
    ...renderLoop(rowSums(p, named, row(0), row(p.q)), buffers.bytes, target),
    queryGradient(p, rest("putKey", "putValue"), buffers, target),
    keyGradient(p, rest("putQuery"), buffers, target),
  ];
}

/** Per query: L, and delta = Σ_j p_j dp_j = dO · O. */
function rowSums(
  { batch, heads, q, d }: AttentionParams,
  named: ReadonlyMap<string, Named>,
  logSum: Operand,
  delta: Operand,
): LoopKernel {
  const load = (name: string): Instr => {
    const { dtype, buffer, view } = named.get(name)!.operand;
    const missing = 4 - view.strides.length;
    const strides = [...view.strides, ...range(missing).map(() => 0)];
    const valid = view.valid && { valid: [...view.valid, ...range(missing).map(() => null)] };
    const from = { dtype, buffer, view: { ...view, strides, ...valid } };
    return { op: "load", from, dtype: "f32" };
  };
  return {
    type: "loop",
    outer: [batch, heads, q],
    inner: [d],
    body: [
      load("result"),
      load("gradient"),
      { op: "mul", a: 0, b: 1, dtype: "f32" },
      { op: "reduce", kind: "sum", a: 2, dtype: "f32" },
      load("logSum"),
    ],
    stores: [
      { to: delta, value: 3 },
      { to: logSum, value: 4 },
    ],
  };
}

const without = (named: ReadonlyMap<string, Named>, ...keys: string[]): Named[] =>
  [...named].flatMap(([key, n]) => (keys.includes(key) ? [] : [n]));

function queryGradient(
  p: AttentionParams,
  named: readonly Named[],
  buffers: Buffers,
  target: Target,
): Kernel {
  const a = new AttentionKernel(p, named, buffers.bytes, target);
  const { groups, text } = place(a, "queries", "head");
  const main = [
    ...text,
    `let keyHead = head / ${p.heads / p.kvHeads}u;`,
    ...a.line("query", "b, head, own", "q"),
    ...a.line("gradient", "b, head, own", "g"),
    "let sum = delta(b, head, own);",
    "let norm = logSum(b, head, own);",
    ...a.zeros("d"),
    `for (var start = 0u; start < ${keyEnd(a)}; start += ${TILE}u) {`,
    ...a.barrier(),
    ...a.loadTile("key", "b, keyHead", "start", a.lastKey),
    ...a.loadTile("value", "b, keyHead", "start", a.lastKey),
    ...a.barrier(),
    ...a.dots("s", "q", "key"),
    ...a.dots("t", "g", "value"),
    ...scores(a, keysPass(a)),
    ...a.each((j) => {
      const weight = `exp(s[${j}] - norm) * (t[${j}] - sum) * ${literal(p.scale, "f32")}`;
      return [`s[${j}] = select(0f, ${weight}, see[${j}]);`];
    }),
    ...a.accumulate("d", "s", "key"),
    "}",
    "if (exists) {",
    ...a.storeLine("putQuery", "b, head, own", (part) => `d${part}`),
    "}",
  ];
  return a.kernel("attentionGrad queries", groups, main);
}

function keyGradient(p: AttentionParams, named: readonly Named[], buffers: Buffers, target: Target): Kernel {
  const a = new AttentionKernel(p, named, buffers.bytes, target);
  const { groups, text } = place(a, "keys", "keyHead");
  const group = p.heads / p.kvHeads;
  // the first query that sees the workgroup's first key is first + q - kv
  const begin = p.causal ? `((max(first + ${a.q}, ${a.kv}) - ${a.kv}) / ${TILE}u) * ${TILE}u` : "0u";
  const ofLane = (name: string): string => `${name}(b, head, min(start + lane, ${a.lastQuery}))`;
  const main = [
    ...text,
    ...a.line("key", "b, keyHead, own", "k"),
    ...a.line("value", "b, keyHead, own", "v"),
    ...a.zeros("dk"),
    ...a.zeros("dv"),
    `for (var turn = 0u; turn < ${group}u + P[0].x; turn++) {`,
    `let head = keyHead * ${group}u + turn;`,
    `for (var start = ${begin}; start < ${a.q}; start += ${TILE}u) {`,
    ...a.barrier(),
    ...a.loadTile("query", "b, head", "start", a.lastQuery),
    ...a.loadTile("gradient", "b, head", "start", a.lastQuery),
    ...a.barrier(),
    ...a.dots("s", "k", "query"),
    ...a.dots("t", "v", "gradient"),
    ...scores(a, queriesPass(a)),
    ...a.perLine("norms", ofLane("logSum"), (j) => `logSum(b, head, min(start + ${j}, ${a.lastQuery}))`),
    ...a.perLine("deltas", ofLane("delta"), (j) => `delta(b, head, min(start + ${j}, ${a.lastQuery}))`),
    ...a.each((j) => [
      `s[${j}] = select(0f, exp(s[${j}] - norms[${j}]), see[${j}]);`,
      `t[${j}] = s[${j}] * (t[${j}] - deltas[${j}]) * ${literal(p.scale, "f32")};`,
    ]),
    ...a.accumulate("dv", "s", "gradient"),
    ...a.accumulate("dk", "t", "query"),
    "}",
    "}",
    "if (exists) {",
    ...a.storeLine("putKey", "b, keyHead, own", (part) => `dk${part}`),
    ...a.storeLine("putValue", "b, keyHead, own", (part) => `dv${part}`),
    "}",
  ];
  return a.kernel("attentionGrad keys", groups, main);
}
