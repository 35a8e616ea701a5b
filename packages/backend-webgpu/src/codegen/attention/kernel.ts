/**
 * The parts of attention and of its gradient as WGSL, without ever storing the matrix of scores (Dao et al., "FlashAttention", 2022; the
 * gradient recomputes the probabilities from the saved log-sum L). Every invocation owns one line, a query or a key, in
 * registers, and the workgroup loops over tiles of eight lines of the other kind. Invocations read tiles from workgroup
 * memory, or, on adapters that compute on the CPU, by subgroup broadcasts: lane l loads line l.
 */
import { type AttentionParams, type LibraryCall, type Operand, product } from "@tiedlora/kernels";
import { loadFourFunction, loadFunction, storeFourFunction, storeFunction, useOf } from "../accessors.ts";
import { allOf, literal } from "../arithmetic.ts";
import { Bindings } from "../bindings.ts";
import type { Use } from "../shown.ts";
import { assemble } from "../entry.ts";
import type { Sizes } from "../sizes.ts";
import { Helpers } from "../helpers.ts";
import { ceilDiv, type Kernel, range, type Target } from "../target.ts";

export type CallOf<K> = Extract<LibraryCall, { name: K }>;

/** Lines of a tile, both in workgroup memory and by subgroup broadcasts. */
export const TILE = 8;
/** The widest head whose lines fit into registers; wider heads are lowered to matmul and softmax. */
export const MAX_HEAD = 128;

/** An operand under the name by which the kernel's functions access it. */
export interface Named {
  readonly name: string;
  readonly operand: Operand;
  readonly lengths: readonly number[];
  readonly write: boolean;
}

/** Whether an operand consists of lines, accessed four elements at a time, rather than of single numbers. */
const isLine = ({ name, lengths }: Pick<Named, "name" | "lengths">): boolean =>
  lengths.length === 4 && name !== "bias";

/** The parts of one kernel's code: the lines that invocations own, and the tiles that they read. */
export class AttentionKernel {
  readonly params: AttentionParams;
  /** Vectors of four in a line. */
  readonly parts: readonly number[];
  readonly lanes: number;
  readonly #subgroup: boolean;
  /** Whether loops over the lines of a tile stay loops instead of being unrolled: slower, but quick to compile on a CPU. */
  readonly #compact: boolean;
  readonly #target: Target;
  readonly #named: readonly Named[];
  readonly #bindings: Bindings;
  readonly #tiles = new Set<string>();
  /** Expressions for the numbers of queries and of keys, and for the last of each. */
  readonly q: string;
  readonly kv: string;
  readonly lastQuery: string;
  readonly lastKey: string;

  constructor(
    params: AttentionParams,
    named: readonly Named[],
    bufferBytes: readonly number[],
    target: Target,
  ) {
    this.params = params;
    this.parts = range(ceilDiv(params.d, 4));
    this.#subgroup = target.software && target.subgroup === TILE;
    this.#compact = target.software && !this.#subgroup;
    this.lanes = this.#subgroup ? TILE : 64;
    this.#target = target;
    this.#named = named;
    const uses = named.map((n): Use => (isLine(n) ? useOf(n.operand, n.lengths, n.write) : n));
    this.#bindings = new Bindings(uses, bufferBytes, target, new Helpers());
    this.q = this.sizes.of("queries", params.q);
    this.kv = this.sizes.of("keys", params.kv);
    this.lastQuery = `${this.q} - 1u`;
    this.lastKey = `${this.kv} - 1u`;
  }

  /** The numbers that follow from lengths. */
  get sizes(): Sizes {
    return this.#bindings.sizes;
  }

  /** Statements that load a line as `{to}0`, `{to}1`, …; `at` is its three leading indices. */
  line(from: string, at: string, to: string): string[] {
    return this.parts.map((p) => `let ${to}${p} = ${from}(${at}, ${4 * p}u);`);
  }

  zeros(name: string): string[] {
    return this.parts.map((p) => `var ${name}${p} = vec4<f32>();`);
  }

  storeLine(to: string, at: string, value: (p: number) => string): string[] {
    return this.parts.map((p) => `${to}(${at}, ${4 * p}u, ${value(p)});`);
  }

  /**
   * Statements that load the tile of `from` that starts at line `start`; `head` is the leading indices, and lines beyond
   * `last` repeat it.
   */
  loadTile(from: string, head: string, start: string, last: string): string[] {
    this.#tiles.add(from);
    if (this.#subgroup) {
      return this.parts.map(
        (p) => `let ${from}Own${p} = ${from}(${head}, min(${start} + lane, ${last}), ${4 * p}u);`,
      );
    }
    const width = this.parts.length;
    return [
      `for (var e = lane; e < ${TILE * width}u; e += ${this.lanes}u) {`,
      `  ${from}Tile[e] = ${from}(${head}, min(${start} + e / ${width}u, ${last}), (e % ${width}u) * 4u);`,
      "}",
    ];
  }

  /**
   * A barrier, needed before and after tiles are loaded: other invocations may still read the previous tile, and will read
   * the next.
   */
  barrier(): string[] {
    return this.#subgroup ? [] : ["workgroupBarrier();"];
  }

  /** Statements for each line `j` (an expression) of a tile. */
  each(f: (j: string) => readonly string[]): string[] {
    if (!this.#compact) return range(TILE).flatMap((j) => f(`${j}u`));
    // Bounds of inner loops are constants: LLVM, which software adapters use, crashes on some that are not.
    return [`for (var j = 0u; j < ${TILE}u; j++) {`, ...f("j"), "}"];
  }

  /** Part `p` of line `j` of the tile of `from`. */
  #tile(from: string, j: string, p: number): string {
    if (this.#subgroup) return `subgroupBroadcast(${from}Own${p}, ${j})`;
    return `${from}Tile[${j} * ${this.parts.length}u + ${p}u]`;
  }

  /** Statements that set `{to}[j]` to the dot product of the line in `{own}0`, `{own}1`, … with line j of a tile, for all j. */
  dots(to: string, own: string, from: string): string[] {
    const add = (j: string, p: number): string =>
      `${to}[${j}] += dot(${own}${p}, ${this.#tile(from, j, p)});`;
    // Zeros are written out: Mesa's software Vulkan does not repeat implicit ones in later iterations of a loop.
    const start = `var ${to} = array<f32, ${TILE}>();`;
    if (this.#compact) return [start, ...this.each((j) => this.parts.map((p) => add(j, p)))];
    return [start, ...this.parts.flatMap((p) => this.each((j) => [add(j, p)]))];
  }

  /**
   * Statements that set each `{to}p` to `start(p) + Σ_j {weight}[j] · tile line j`; without `start`, they add the sum to
   * `{to}p`.
   */
  accumulate(to: string, weight: string, from: string, start?: (p: number) => string): string[] {
    const begin = (p: number): string[] => (start ? [`${to}${p} = ${start(p)};`] : []);
    const add = (j: string, p: number): string =>
      `${to}${p} = fma(vec4<f32>(${weight}[${j}]), ${this.#tile(from, j, p)}, ${to}${p});`;
    if (this.#compact) {
      return [...this.parts.flatMap(begin), ...this.each((j) => this.parts.map((p) => add(j, p)))];
    }
    return this.parts.flatMap((p) => [...begin(p), ...this.each((j) => [add(j, p)])]);
  }

  /**
   * Statements that define an array with one number per line of the tile. With subgroups, each lane computes the number of
   * its line (`ofLane`) and broadcasts it; otherwise every invocation computes all numbers (`of`).
   */
  perLine(to: string, ofLane: string, of: (j: string) => string): string[] {
    const start = `var ${to}: array<f32, ${TILE}>;`;
    if (!this.#subgroup) return [start, ...this.each((j) => [`${to}[${j}] = ${of(j)};`])];
    const own = `let ${to}Own = ${ofLane};`;
    return [start, own, ...this.each((j) => [`${to}[${j}] = subgroupBroadcast(${to}Own, ${j});`])];
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
        directives: this.#subgroup ? ["enable subgroups;"] : [],
      },
      this.#bindings,
      this.#target,
    );
  }
}

/** The operands of an attention call under their names, with their shapes. */
export function operandsOf({
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

/**
 * The number of workgroups, and statements that place an invocation: they define `b`, `head` (under the name `head`), `own` (its line), and
 * `exists` (whether it has one). Invocations own the queries of all heads, or the keys.
 */
export function place(
  a: AttentionKernel,
  what: "queries" | "keys",
  head: string,
): { groups: number; text: string[] } {
  const { batch, heads, kvHeads, q, kv } = a.params;
  const [lines, ofHeads] = what === "queries" ? [q, heads] : [kv, kvHeads];
  const grid = [batch, ofHeads, ceilDiv(lines, a.lanes)];
  const count = what === "queries" ? a.q : a.kv;
  return {
    groups: product(grid),
    text: [
      ...a.sizes.split(
        "group",
        grid,
        (d) => ["b", head, "block"][d]!,
        (d) => ["", "heads", "blocks"][d]!,
      ),
      `let first = block * ${a.lanes}u;`,
      `let exists = first + lane < ${count};`,
      `let own = min(first + lane, ${count} - 1u);`,
    ],
  };
}

/** The query and the key of line `j` of the tile, and whether that line exists. */
export interface Pair {
  readonly query: (j: string) => string;
  readonly key: (j: string) => string;
  readonly inside: (j: string) => string;
}

export const keysPass = ({ kv }: AttentionKernel): Pair => ({
  query: () => "own",
  key: (j) => `(start + ${j})`,
  inside: (j) => `start + ${j} < ${kv}`,
});

export const queriesPass = ({ q }: AttentionKernel): Pair => ({
  query: (j) => `(start + ${j})`,
  key: () => "own",
  inside: (j) => `start + ${j} < ${q}`,
});

/** Statements that turn the scores `s` into scaled, biased ones; `see` says which pairs of query and key count. */
export function scores(a: AttentionKernel, { query, key, inside }: Pair): string[] {
  const { bias, causal, scale } = a.params;
  const { q, kv, lastQuery, lastKey } = a;
  return [
    `var see: array<bool, ${TILE}>;`,
    ...a.each((j) => {
      const plus = bias ? ` + bias(b, head, min(${query(j)}, ${lastQuery}), min(${key(j)}, ${lastKey}))` : "";
      // indices are unsigned, so the condition is j + q <= i + kv
      const before = causal ? [`${key(j)} + ${q} <= ${query(j)} + ${kv}`] : [];
      return [
        `s[${j}] = s[${j}] * ${literal(scale, "f32")}${plus};`,
        `see[${j}] = ${allOf([inside(j), ...before])};`,
      ];
    }),
  ];
}

/** The end of the keys that any query of the workgroup sees. */
export function keyEnd({ params, q, kv, lanes }: AttentionKernel): string {
  if (!params.causal) return kv;
  // the last query of the workgroup sees keys up to first + lanes - 1 + kv - q
  return `min(${kv}, max(first + ${lanes}u + ${kv}, ${q}) - ${q})`;
}
