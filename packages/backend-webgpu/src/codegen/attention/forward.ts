/** Attention as WGSL: one kernel, whose workgroups read tiles of keys and values. */
import type { Buffers } from "../buffers.ts";
import type { Kernel, Target } from "../target.ts";
import {
  AttentionKernel,
  type CallOf,
  keyEnd,
  keysPass,
  MAX_HEAD,
  operandsOf,
  place,
  scores,
  TILE,
} from "./kernel.ts";

export function isAttentionRendered({ params }: CallOf<"attention"> | CallOf<"attentionGrad">): boolean {
  return params.d <= MAX_HEAD;
}

/** The forward pass: one invocation per query. */
export function renderAttention(call: CallOf<"attention">, buffers: Buffers, target: Target): Kernel[] {
  const p = call.params;
  const a = new AttentionKernel(p, [...operandsOf(call).values()], buffers.bytes, target);
  const { groups, text } = place(a, "queries", "head");
  const keyHead = `head / ${p.heads / p.kvHeads}u`;
  const main = [
    ...text,
    `let keyHead = ${keyHead};`,
    ...a.line("query", "b, head, own", "q"),
    ...a.zeros("o"),
    "var most = -3.4e38f;",
    "var sum = 0f;",
    `for (var start = 0u; start < ${keyEnd(a)}; start += ${TILE}u) {`,
    ...a.barrier(),
    ...a.loadTile("key", "b, keyHead", "start", a.lastKey),
    ...a.loadTile("value", "b, keyHead", "start", a.lastKey),
    ...a.barrier(),
    ...a.dots("s", "q", "key"),
    ...scores(a, keysPass(a)),
    "var top = most;",
    ...a.each((j) => [`top = max(top, select(most, s[${j}], see[${j}]));`]),
    "let shrink = exp(most - top);",
    "most = top;",
    "sum *= shrink;",
    ...a.each((j) => [`s[${j}] = select(0f, exp(s[${j}] - top), see[${j}]);`, `sum += s[${j}];`]),
    ...a.accumulate("o", "s", "value", (part) => `o${part} * shrink`),
    "}",
    "if (exists) {",
    ...a.storeLine("putResult", "b, head, own", (part) => `o${part} / sum`),
    "putLogSum(b, head, own, most + log(sum));",
    "}",
  ];
  return [a.kernel("attention", groups, main)];
}
