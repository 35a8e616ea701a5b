/**
 * Attention and its gradient as WGSL, without ever writing the matrix of scores (Dao et al., "FlashAttention", 2022;
 * the gradient recomputes the probabilities from the saved log-sum L). Every invocation owns one line, a query or a
 * key, in registers, and the workgroup passes over tiles of eight lines of the other kind. Tiles are handed out from
 * workgroup memory, or, on adapters that compute on the CPU, by subgroup broadcasts: lane l loads line l.
 */
import type { AttentionParams, LibraryCall, Operand } from "@tiedlora/core";
import { loadFourFunction, loadFunction, storeFourFunction, storeFunction, useOf } from "./accessors.ts";
import { literal } from "./arithmetic.ts";
import { Bindings, type Use } from "./bindings.ts";
import type { Buffers } from "./buffers.ts";
import { assemble } from "./entry.ts";
import { Helpers } from "./helpers.ts";
import { ceilDiv, type Kernel, range, type Target } from "./target.ts";

type CallOf<K> = Extract<LibraryCall, { name: K }>;

/** Lines of a tile, in both ways to hand them out. */
const TILE = 8;
/** The widest head whose lines fit registers; wider ones are lowered to matmul and softmax. */
const MAX_HEAD = 128;

export function isAttentionRendered({ params }: CallOf<"attention"> | CallOf<"attentionGrad">): boolean {
  return params.d <= MAX_HEAD;
}

/** An operand under the name by which the kernel's functions access it. */
interface Named {
  readonly name: string;
  readonly operand: Operand;
  readonly lengths: readonly number[];
  readonly write: boolean;
}

/** Whether an operand consists of lines, accessed four elements at a time, rather than of single numbers. */
const isLine = ({ name, lengths }: Pick<Named, "name" | "lengths">): boolean =>
  lengths.length === 4 && name !== "bias";

/** What one kernel is made of: who owns lines, how tiles are handed out. */
class AttentionKernel {
  readonly params: AttentionParams;
  /** Vectors of four in a line. */
  readonly parts: readonly number[];
  readonly lanes: number;
  readonly #subgroup: boolean;
  readonly #target: Target;
  readonly #named: readonly Named[];
  readonly #bindings: Bindings;
  readonly #tiles = new Set<string>();

  constructor(
    params: AttentionParams,
    named: readonly Named[],
    bufferBytes: readonly number[],
    target: Target,
  ) {
    this.params = params;
    this.parts = range(ceilDiv(params.d, 4));
    this.#subgroup = target.software && target.subgroup === TILE;
    this.lanes = this.#subgroup ? TILE : 64;
    this.#target = target;
    this.#named = named;
    const uses = named.map((n): Use => (isLine(n) ? useOf(n.operand, n.lengths, n.write) : n));
    this.#bindings = new Bindings(uses, bufferBytes, target, new Helpers());
  }

  /** Statements that load the line that `at` names (its three leading indices) as `{to}0`, `{to}1`, …; `let` or `var`. */
  line(from: string, at: string, to: string): string[] {
    return this.parts.map((p) => `let ${to}${p} = ${from}(${at}, ${4 * p}u);`);
  }

  zeros(name: string): string[] {
    return this.parts.map((p) => `var ${name}${p} = vec4<f32>();`);
  }

  storeLine(to: string, at: string, value: (p: number) => string): string[] {
    return this.parts.map((p) => `${to}(${at}, ${4 * p}u, ${value(p)});`);
  }

  /** Statements that make a tile of `from` available to `tile`: `head` are the leading indices, lines clamp at `last`. */
  loadTile(from: string, head: string, start: string, last: number): string[] {
    this.#tiles.add(from);
    if (this.#subgroup) {
      return this.parts.map(
        (p) => `let ${from}Own${p} = ${from}(${head}, min(${start} + lane, ${last}u), ${4 * p}u);`,
      );
    }
    const width = this.parts.length;
    return [
      `for (var e = lane; e < ${TILE * width}u; e += ${this.lanes}u) {`,
      `  ${from}Tile[e] = ${from}(${head}, min(${start} + e / ${width}u, ${last}u), (e % ${width}u) * 4u);`,
      "}",
    ];
  }

  /** Before and after the loading of tiles: other invocations may still read the last, and will read the next. */
  barrier(): string[] {
    return this.#subgroup ? [] : ["workgroupBarrier();"];
  }

  /** Part `p` of line `j` of the tile of `from`. */
  tile(from: string, j: number, p: number): string {
    if (this.#subgroup) return `subgroupBroadcast(${from}Own${p}, ${j}u)`;
    return `${from}Tile[${j * this.parts.length + p}]`;
  }

  /** Statements that define `{to}0` … `{to}7`: the dot products of a line held as `{own}0` … with those of a tile. */
  dots(to: string, own: string, from: string): string[] {
    return [
      ...range(TILE).map((j) => `var ${to}${j} = 0f;`),
      ...this.parts.flatMap((p) =>
        range(TILE).map((j) => `${to}${j} += dot(${own}${p}, ${this.tile(from, j, p)});`),
      ),
    ];
  }

  /** Statements `{to}p = start(p) + Σ_j {weight}j · tile line j`. */
  accumulate(to: string, weight: string, from: string, start: (p: number) => string): string[] {
    return this.parts.flatMap((p) => [
      `${to}${p} = ${start(p)};`,
      ...range(TILE).map(
        (j) => `${to}${p} = fma(vec4<f32>(${weight}${j}), ${this.tile(from, j, p)}, ${to}${p});`,
      ),
    ]);
  }

  /** Statements that define `{to}0` … `{to}7`: a number of each line of the tile, by lane or all by every invocation. */
  perLine(to: string, ofLane: string, of: (j: number) => string): string[] {
    if (!this.#subgroup) return range(TILE).map((j) => `let ${to}${j} = ${of(j)};`);
    return [
      `let ${to}Own = ${ofLane};`,
      ...range(TILE).map((j) => `let ${to}${j} = subgroupBroadcast(${to}Own, ${j}u);`),
    ];
  }

  /** The functions of all operands: lines four at a time, rows of numbers (`lengths` of rank 3) one at a time. */
  #functions(): string[] {
    return this.#named.map(({ name, operand, lengths, write }) => {
      const four = isLine({ name, lengths });
      const define = write
        ? four ? storeFourFunction : storeFunction
        : four ? loadFourFunction : loadFunction; // prettier-ignore
      return define(name, operand, lengths, this.#bindings);
    });
  }

  kernel(label: string, groups: number, main: readonly string[]): Kernel {
    const { batch, heads, q, kv, d, causal } = this.params;
    const vectors = TILE * this.parts.length;
    return assemble(
      {
        label: `${label} [${batch},${heads},${q}x${kv},${d}]${causal ? " causal" : ""}`,
        groups,
        size: [this.lanes, 1],
        shared: this.#subgroup
          ? []
          : [...this.#tiles].map((t) => `var<workgroup> ${t}Tile: array<vec4<f32>, ${vectors}>;`),
        functions: this.#functions(),
        main,
        subgroups: this.#subgroup,
      },
      this.#bindings,
      this.#target,
    );
  }
}

/** The operands of an attention call under their names, with their shapes. */
function operandsOf({
  params,
  inputs,
  outputs,
  name,
}: CallOf<"attention"> | CallOf<"attentionGrad">): Map<string, Named> {
  const { batch, heads, kvHeads, q, kv, d, bias } = params;
  const queries = [batch, heads, q, d];
  const keys = [batch, kvHeads, kv, d];
  const rows = [batch, heads, q];
  const biases: [string, number[]][] = bias ? [["bias", [batch, heads, q, kv]]] : [];
  const reads: [string, number[]][] = [["query", queries], ["key", keys], ["value", keys], ...biases];
  const isGrad = name === "attentionGrad";
  if (isGrad) reads.push(["result", queries], ["logSum", rows], ["gradient", queries]);
  const writes: [string, number[]][] = isGrad
    ? [["putQuery", queries], ["putKey", keys], ["putValue", keys]] // prettier-ignore
    : [
        ["putResult", queries],
        ["putLogSum", rows],
      ];
  const entry = (list: readonly Operand[], write: boolean) => {
    return ([key, lengths]: [string, number[]], i: number): [string, Named] => [
      key,
      { name: key, operand: list[i]!, lengths, write },
    ];
  };
  return new Map([...reads.map(entry(inputs, false)), ...writes.map(entry(outputs, true))]);
}

/** Statements that place an invocation: `b`, `head`, `own` (its line), and whether that `exists`. */
function place(lines: number, heads: number, lanes: number): { groups: number; text: string[] } {
  const blocks = ceilDiv(lines, lanes);
  return {
    groups: blocks * heads,
    text: [
      `let b = group / ${blocks * heads}u;`,
      `let head = (group / ${blocks}u) % ${heads}u;`,
      `let first = (group % ${blocks}u) * ${lanes}u;`,
      `let exists = first + lane < ${lines}u;`,
      `let own = min(first + lane, ${lines - 1}u);`,
    ],
  };
}

/** Statements that turn the scores `s0` … into scaled, biased ones; `see` says which pairs of query and key count. */
function scores(
  p: AttentionParams,
  query: (j: number) => string,
  key: (j: number) => string,
  inside: (j: number) => string,
): string[] {
  return range(TILE).flatMap((j) => {
    const bias = p.bias
      ? ` + bias(b, head, min(${query(j)}, ${p.q - 1}u), min(${key(j)}, ${p.kv - 1}u))`
      : "";
    // unsigned, so written as j + q <= i + kv
    const causal = p.causal ? ` && ${key(j)} + ${p.q}u <= ${query(j)} + ${p.kv}u` : "";
    return [`s${j} = s${j} * ${literal(p.scale, "f32")}${bias};`, `let see${j} = ${inside(j)}${causal};`];
  });
}

const perKey = (f: (j: number) => string): string[] => range(TILE).map(f);

/** The forward pass: one invocation per query. */
export function renderAttention(call: CallOf<"attention">, buffers: Buffers, target: Target): Kernel[] {
  const p = call.params;
  const a = new AttentionKernel(p, [...operandsOf(call).values()], buffers.bytes, target);
  const { groups, text } = place(p.q, p.heads, a.lanes);
  const keyHead = `head / ${p.heads / p.kvHeads}u`;
  const main = [
    ...text,
    `let keyHead = ${keyHead};`,
    ...a.line("query", "b, head, own", "q"),
    ...a.zeros("o"),
    "var most = -3.4e38f;",
    "var sum = 0f;",
    `for (var start = 0u; start < ${keyEnd(p, a.lanes)} + P[0].x; start += ${TILE}u) {`,
    ...a.barrier(),
    ...a.loadTile("key", "b, keyHead", "start", p.kv - 1),
    ...a.loadTile("value", "b, keyHead", "start", p.kv - 1),
    ...a.barrier(),
    ...a.dots("s", "q", "key"),
    ...scores(
      p,
      () => "own",
      (j) => `(start + ${j}u)`,
      (j) => `start + ${j}u < ${p.kv}u`,
    ),
    "var top = most;",
    ...perKey((j) => `top = max(top, select(most, s${j}, see${j}));`),
    "let shrink = exp(most - top);",
    "most = top;",
    "sum *= shrink;",
    ...perKey((j) => `let p${j} = select(0f, exp(s${j} - top), see${j}); sum += p${j};`),
    ...a.accumulate("o", "p", "value", (part) => `o${part} * shrink`),
    "}",
    "if (exists) {",
    ...a.storeLine("putResult", "b, head, own", (part) => `o${part} / sum`),
    "putLogSum(b, head, own, most + log(sum));",
    "}",
  ];
  return [a.kernel("attention", p.batch * groups, main)];
}

/** Beyond this key no query of the workgroup sees any. */
function keyEnd(p: AttentionParams, lanes: number): string {
  if (!p.causal) return `${p.kv}u`;
  // the last query of the workgroup sees keys up to first + lanes - 1 + kv - q
  return `min(${p.kv}u, max(first + ${lanes + p.kv}u, ${p.q}u) - ${p.q}u)`;
}

/** The gradients: queries own lines in the first kernel, keys in the second. */
export function renderAttentionGrad(
  call: CallOf<"attentionGrad">,
  buffers: Buffers,
  target: Target,
): Kernel[] {
  const p = call.params;
  const named = operandsOf(call);
  const lengths = [p.batch, p.heads, p.q];
  // per query Σ_j p_j dp_j = dO · O, handed from the first kernel to the second
  const delta: Operand = {
    buffer: buffers.scratch(4 * p.batch * p.heads * p.q),
    dtype: "f32",
    view: { offset: 0, strides: [p.heads * p.q, p.q, 1] },
  };
  return [
    queryGradient(
      p,
      [...without(named, "putKey", "putValue"), { name: "putDelta", operand: delta, lengths, write: true }],
      buffers,
      target,
    ),
    keyGradient(
      p,
      [
        ...without(named, "result", "putQuery"),
        { name: "delta", operand: { ...delta }, lengths, write: false },
      ],
      buffers,
      target,
    ),
  ];
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
  const { groups, text } = place(p.q, p.heads, a.lanes);
  const main = [
    ...text,
    `let keyHead = head / ${p.heads / p.kvHeads}u;`,
    ...a.line("query", "b, head, own", "q"),
    ...a.line("gradient", "b, head, own", "g"),
    "var delta = 0f;",
    ...a.parts.map((part) => `delta += dot(g${part}, result(b, head, own, ${4 * part}u));`),
    "let norm = logSum(b, head, own);",
    ...a.zeros("d"),
    `for (var start = 0u; start < ${keyEnd(p, a.lanes)} + P[0].x; start += ${TILE}u) {`,
    ...a.barrier(),
    ...a.loadTile("key", "b, keyHead", "start", p.kv - 1),
    ...a.loadTile("value", "b, keyHead", "start", p.kv - 1),
    ...a.barrier(),
    ...a.dots("s", "q", "key"),
    ...a.dots("t", "g", "value"),
    ...scores(
      p,
      () => "own",
      (j) => `(start + ${j}u)`,
      (j) => `start + ${j}u < ${p.kv}u`,
    ),
    ...perKey(
      (j) =>
        `let w${j} = select(0f, exp(s${j} - norm) * (t${j} - delta) * ${literal(p.scale, "f32")}, see${j});`,
    ),
    ...a.accumulate("d", "w", "key", (part) => `d${part}`),
    "}",
    "if (exists) {",
    ...a.storeLine("putQuery", "b, head, own", (part) => `d${part}`),
    "putDelta(b, head, own, delta);",
    "}",
  ];
  return a.kernel("attentionGrad queries", p.batch * groups, main);
}

function keyGradient(p: AttentionParams, named: readonly Named[], buffers: Buffers, target: Target): Kernel {
  const a = new AttentionKernel(p, named, buffers.bytes, target);
  const { groups, text } = place(p.kv, p.kvHeads, a.lanes);
  const group = p.heads / p.kvHeads;
  // the first query that sees the workgroup's first key is first + q - kv
  const begin = p.causal ? `((max(first + ${p.q}u, ${p.kv}u) - ${p.kv}u) / ${TILE}u) * ${TILE}u` : "0u";
  const ofLane = (name: string): string => `${name}(b, head, min(start + lane, ${p.q - 1}u))`;
  const main = [
    ...text.map((line) => line.replace("let head", "let keyHead")),
    ...a.line("key", "b, keyHead, own", "k"),
    ...a.line("value", "b, keyHead, own", "v"),
    ...a.zeros("dk"),
    ...a.zeros("dv"),
    `for (var turn = 0u; turn < ${group}u + P[0].x; turn++) {`,
    `let head = keyHead * ${group}u + turn;`,
    `for (var start = ${begin}; start < ${p.q}u + P[0].x; start += ${TILE}u) {`,
    ...a.barrier(),
    ...a.loadTile("query", "b, head", "start", p.q - 1),
    ...a.loadTile("gradient", "b, head", "start", p.q - 1),
    ...a.barrier(),
    ...a.dots("s", "k", "query"),
    ...a.dots("t", "v", "gradient"),
    ...scores(
      p,
      (j) => `(start + ${j}u)`,
      () => "own",
      (j) => `start + ${j}u < ${p.q}u`,
    ),
    ...a.perLine("norm", ofLane("logSum"), (j) => `logSum(b, head, min(start + ${j}u, ${p.q - 1}u))`),
    ...a.perLine("delta", ofLane("delta"), (j) => `delta(b, head, min(start + ${j}u, ${p.q - 1}u))`),
    ...perKey((j) => `let p${j} = select(0f, exp(s${j} - norm${j}), see${j});`),
    ...perKey((j) => `let w${j} = p${j} * (t${j} - delta${j}) * ${literal(p.scale, "f32")};`),
    ...a.accumulate("dv", "p", "gradient", (part) => `dv${part}`),
    ...a.accumulate("dk", "w", "query", (part) => `dk${part}`),
    "}",
    "}",
    "if (exists) {",
    ...a.storeLine("putKey", "b, keyHead, own", (part) => `dk${part}`),
    ...a.storeLine("putValue", "b, keyHead, own", (part) => `dv${part}`),
    "}",
  ];
  return a.kernel("attentionGrad keys", p.batch * groups, main);
}
