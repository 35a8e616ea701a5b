/**
 * Matrix products as WGSL: which of the kernels to use, and what they share. A kernel sees two sides, each a set of
 * lines (rows of A, columns of B, or the other way round) along the depth k, over which it sums.
 */
import {
  type Epilogue,
  type Instr,
  type LibraryCall,
  type LoopKernel,
  type Operand,
  product,
  type View,
} from "@tiedlora/kernels";
import { allOf, type Width, wgslType } from "../arithmetic.ts";
import { address, Bindings, condition, modeOf, type Use } from "../bindings.ts";
import { BodyWriter, usesOf } from "../body.ts";
import { assemble, type Entry } from "../entry.ts";
import { Helpers } from "../helpers.ts";
import { renderLoop } from "../loop.ts";
import { matrixKernel, suitsMatrix } from "./matrix.ts";
import { subgroupKernel } from "./subgroup.ts";
import { tiledKernel } from "./tiled.ts";
import { axisToSplit, narrowView, wantsSplit } from "../space.ts";
import { ceilDiv, type Kernel, range, type Target } from "../target.ts";

export type MatmulCall = Extract<LibraryCall, { name: "matmul" }>;

/** A product over a part of its rows and columns: `index` along an axis of the epilogue starts at `origin[axis]`. */
interface Product {
  readonly batch: readonly number[];
  readonly m: number;
  readonly n: number;
  readonly k: readonly number[];
  readonly inputs: readonly Operand[];
  readonly epilogue: Epilogue;
  readonly origin: readonly number[];
}

/** The dispatches of a matmul. */
export function renderMatmul(call: MatmulCall, bufferBytes: readonly number[], target: Target): Kernel[] {
  const { batch, m, n, k, epilogue } = call.params;
  const whole: Product = {
    batch,
    m,
    n,
    k,
    inputs: call.inputs,
    epilogue: epilogue ?? {
      body: [{ op: "product", dtype: "f32" }],
      stores: [{ to: call.outputs[0]!, value: 0 }],
    },
    origin: [...batch, m, n].map(() => 0),
  };
  if (!target.software && Math.min(m, n) === 1 && k.length === 1 && k[0]! >= 32) {
    return renderLoop(asLoop(whole), bufferBytes, target); // a matrix times a vector: one reduction per element
  }
  return split(whole, bufferBytes, target).map((p) => renderProduct(p, bufferBytes, target));
}

function renderProduct(p: Product, bufferBytes: readonly number[], target: Target): Kernel {
  // lanes lie along the columns: let those be the longer side
  const swap = p.n < 16 && p.m > p.n;
  const frame = new MatmulFrame(p, swap, bufferBytes, target);
  if (target.software && target.subgroup >= 4) return subgroupKernel(frame, target);
  return suitsMatrix(frame, target) ? matrixKernel(frame, target) : tiledKernel(frame, target);
}

/** The product as a row reduction; for one term. */
function asLoop({ batch, m, n, k, inputs, epilogue }: Product): LoopKernel {
  const rank = batch.length;
  const over = (o: Operand, axes: (of: readonly number[]) => number[]): Operand => {
    const valid = o.view.valid && { valid: axesOf(o.view.valid, axes(range(rank + 2))) };
    return { ...o, view: { ...o.view, strides: axes(o.view.strides), ...valid } };
  };
  const [a, b] = [inputs[0]!, inputs[1]!];
  const f32 = "f32" as const;
  const head: Instr[] = [
    { op: "load", from: over(a, (s) => [...s.slice(0, rank), s[rank]!, MISSING, s[rank + 1]!]), dtype: f32 },
    { op: "load", from: over(b, (s) => [...s.slice(0, rank), MISSING, s[rank + 1]!, s[rank]!]), dtype: f32 },
    { op: "mul", a: 0, b: 1, dtype: f32 },
    { op: "reduce", kind: "sum", a: 2, dtype: f32 },
  ];
  const stretch = (v: View): View => ({
    ...v,
    strides: [...v.strides, 0],
    ...(v.valid ? { valid: [...v.valid, null] } : {}),
  });
  const tail = epilogue.body.map((instr): Instr => {
    if (instr.op === "product") return { op: "cast", a: 3, to: f32, dtype: f32 };
    if (instr.op === "load") return { ...instr, from: { ...instr.from, view: stretch(instr.from.view) } };
    return shifted(instr, head.length);
  });
  return {
    type: "loop",
    outer: [...batch, m, n],
    inner: [k[0]!],
    body: fixStrides([...head, ...tail]),
    stores: epilogue.stores.map((s) => ({ ...s, value: s.value + head.length })),
  };
}

/** Marks an axis that an operand does not have, until `fixStrides`. */
const MISSING = Number.MIN_SAFE_INTEGER;

function axesOf<T>(valid: readonly (T | null)[], axes: readonly number[]): (T | null)[] {
  return axes.map((a) => (a === MISSING ? null : valid[a]!));
}

function fixStrides(body: readonly Instr[]): Instr[] {
  return body.map((i) =>
    i.op === "load"
      ? {
          ...i,
          from: {
            ...i.from,
            view: { ...i.from.view, strides: i.from.view.strides.map((s) => (s === MISSING ? 0 : s)) },
          },
        }
      : i,
  );
}

/** The instruction with its operands `by` places further on. */
function shifted(instr: Instr, by: number): Instr {
  if ("c" in instr) return { ...instr, a: instr.a + by, b: instr.b + by, c: instr.c + by };
  if ("b" in instr) return { ...instr, a: instr.a + by, b: instr.b + by };
  return "a" in instr ? { ...instr, a: instr.a + by } : instr;
}

/** Halves batch, m and n until every operand of an oversize buffer fits one binding, where that can be. */
function split(p: Product, bufferBytes: readonly number[], target: Target): Product[] {
  const rank = p.batch.length;
  const outer = [...p.batch, p.m, p.n];
  // every operand over the axes [...batch, m, n]: the depth is not split
  const asOuter = (o: Operand, missing: number): Operand => {
    const strides = o.view.strides.map((s, d) => (d === missing ? 0 : s));
    if (missing === rank) strides[rank + 1] = o.view.strides[rank + 1]!;
    const { valid: _, ...start } = o.view;
    return { ...o, view: { ...start, strides } };
  };
  const isOversize = (o: Operand, lengths: readonly number[], outerRank: number): boolean =>
    wantsSplit(o, lengths, outerRank, bufferBytes[o.buffer]!, target);
  const oversize = [
    ...p.inputs.flatMap((o, i) => {
      const depth = p.k[i >> 1]!;
      const [lines, missing] = i % 2 === 0 ? [p.m, rank + 1] : [p.n, rank];
      // with the depth last, whatever the operand's order
      const view = i % 2 === 0 ? o.view : swapLast(o.view);
      return isOversize({ ...o, view }, [...p.batch, lines, depth], rank + 1) ? [asOuter(o, missing)] : [];
    }),
    ...usesOf({ ...p.epilogue, lengths: outer, vectorAxis: undefined }).flatMap((u) =>
      isOversize(u.operand, outer, outer.length) ? [u.operand] : [],
    ),
  ];
  const axis = oversize.length === 0 ? undefined : axisToSplit(oversize, outer, range(outer.length));
  if (axis === undefined) return [p];
  const length = outer[axis]!;
  const half = length >= 64 ? ceilDiv(length, 64) * 32 : ceilDiv(length, 2);
  return [narrowed(p, axis, 0, half), narrowed(p, axis, half, length - half)].flatMap((q) =>
    split(q, bufferBytes, target),
  );
}

/** The view with its last two axes exchanged. */
function swapLast(view: View): View {
  const { strides, valid } = view;
  const swap = <T>(of: readonly T[]): T[] => [...of.slice(0, -2), of[of.length - 1]!, of[of.length - 2]!];
  return { ...view, strides: swap(strides), ...(valid ? { valid: swap(valid) } : {}) };
}

function narrowed(p: Product, axis: number, start: number, length: number): Product {
  const rank = p.batch.length;
  const move = (o: Operand, at: number | undefined): Operand =>
    at === undefined ? o : { ...o, view: narrowView(o.view, at, start) };
  const atA = axis <= rank ? axis : undefined;
  const atB = axis < rank || axis === rank + 1 ? axis : undefined;
  return {
    batch: p.batch.map((b, d) => (d === axis ? length : b)),
    m: axis === rank ? length : p.m,
    n: axis === rank + 1 ? length : p.n,
    k: p.k,
    inputs: p.inputs.map((o, i) => move(o, i % 2 === 0 ? atA : atB)),
    epilogue: {
      body: p.epilogue.body.map((i) => (i.op === "load" ? { ...i, from: move(i.from, axis) } : i)),
      stores: p.epilogue.stores.map((s) => ({ ...s, to: move(s.to, axis) })),
    },
    origin: p.origin.map((o, d) => (d === axis ? o + start : o)),
  };
}

/** One operand of one term: lines of `depth` numbers. */
export interface Side {
  readonly name: string;
  readonly operand: Operand;
  readonly lineAxis: number;
  readonly depthAxis: number;
  readonly lengths: readonly number[];
  /** What four neighbours can be loaded at once along: the lines, the depth, or nothing. */
  readonly vector: "line" | "depth" | "none";
}

/** One term of the sum. */
export interface Term {
  readonly rows: Side;
  readonly columns: Side;
  readonly depth: number;
}

/** Operands, bindings, and the epilogue of one product, for the kernels to build on. */
export class MatmulFrame {
  readonly rows: number;
  readonly columns: number;
  readonly batches: number;
  readonly terms: readonly Term[];
  /** Of the deepest term. */
  readonly depth: number;
  readonly label: string;
  readonly #p: Product;
  readonly #swap: boolean;
  readonly #target: Target;
  readonly #bindings: Bindings;
  readonly #vectorAxis: number | undefined;
  readonly #lengths: readonly number[];

  constructor(p: Product, swap: boolean, bufferBytes: readonly number[], target: Target) {
    this.#p = p;
    this.#swap = swap;
    this.#target = target;
    this.#lengths = [...p.batch, p.m, p.n];
    this.rows = swap ? p.n : p.m;
    this.columns = swap ? p.m : p.n;
    this.batches = product(p.batch);
    this.terms = p.k.map((depth, t) => this.#term(depth, t));
    this.depth = Math.max(...p.k);
    this.label = `matmul [${this.#lengths.join(",")}] k ${p.k.join("+")}${swap ? " swapped" : ""}`;
    this.#vectorAxis = this.#chooseVectorAxis();
    const sides = this.terms.flatMap((t) => [t.rows, t.columns]);
    const uses: Use[] = [
      ...sides.map((s) => ({
        operand: s.operand,
        write: false,
        lengths: s.lengths,
        vectorAxis: vectorAxisOf(s),
      })),
      ...usesOf({ ...p.epilogue, lengths: this.#lengths, vectorAxis: this.#vectorAxis }),
    ];
    this.#bindings = new Bindings(uses, bufferBytes, target, new Helpers());
  }

  #term(depth: number, t: number): Term {
    const { batch, m, n, inputs } = this.#p;
    const rank = batch.length;
    const side = (i: number, lineAxis: number, depthAxis: number): Side => {
      const operand = inputs[2 * t + i]!;
      const lengths = i === 0 ? [...batch, m, depth] : [...batch, depth, n];
      const along = (vectorAxis: number): boolean =>
        modeOf({ operand, write: false, lengths, vectorAxis }) === "vector" && lengths[vectorAxis]! % 4 === 0;
      const vector = along(lineAxis) ? "line" : along(depthAxis) ? "depth" : "none";
      return { name: `${i === 0 ? "left" : "right"}${t}`, operand, lineAxis, depthAxis, lengths, vector };
    };
    const a = side(0, rank, rank + 1);
    const b = side(1, rank + 1, rank);
    return this.#swap ? { rows: b, columns: a, depth } : { rows: a, columns: b, depth };
  }

  /** The axis of the columns, if the epilogue can treat four neighbouring columns at once. */
  #chooseVectorAxis(): number | undefined {
    const axis = this.#p.batch.length + (this.#swap ? 0 : 1);
    if (this.columns % 4 !== 0) return undefined;
    const modes = usesOf({ ...this.#p.epilogue, lengths: this.#lengths, vectorAxis: axis }).map((u) =>
      modeOf(u),
    );
    return modes.includes("vector") ? axis : undefined;
  }

  /** Functions of one side: `{name}(base, b, line, k)`, and `{name}v` for four along what `side.vector` says. */
  #sideFunctions(side: Side): string {
    const { name, operand, lineAxis, depthAxis, lengths } = side;
    const access = this.#bindings.access(operand);
    const rank = lengths.length - 2;
    const indices = lengths.map((_, d) => (d === lineAxis ? "line" : d === depthAxis ? "k" : `b${d}`));
    const valid = condition(operand, lengths, indices, 0, rank + 2);
    const at = address(operand.view.strides, indices, rank, rank + 2, "base");
    const needsBatch = condition(operand, lengths, indices, 0, rank) !== undefined;
    const head = needsBatch
      ? this.#batchIndices()
          .map((l) => `  ${l}\n`)
          .join("")
      : "";
    const define = (suffix: string, type: string, value: string): string => {
      const guard = valid === undefined ? "" : `  if (!(${valid})) { return ${type}(); }\n`;
      return `fn ${name}${suffix}(base: u32, b: u32, line: u32, k: u32) -> ${type} {\n${head}${guard}  return ${value};\n}`;
    };
    const one = define("", "f32", this.#bindings.load(access, at));
    if (side.vector === "none") return one;
    return `${one}\n${define("v", "vec4<f32>", this.#bindings.loadFour(access, at))}`;
  }

  /** `let b{d}` statements: the index along each batch axis, from the linear batch index `b`. */
  #batchIndices(): string[] {
    const { batch } = this.#p;
    let rest = product(batch);
    return batch.map((n, d) => {
      rest /= n;
      const quotient = rest === 1 ? "b" : `b / ${rest}u`;
      return `let b${d} = ${d === 0 ? quotient : `(${quotient}) % ${n}u`};`;
    });
  }

  /** Statements, with the linear batch index `b` known, that define `{name}_base` for every side. */
  bases(): string[] {
    const rank = this.#p.batch.length;
    const indices = range(rank).map((d) => `b${d}`);
    const sides = this.terms.flatMap((t) => [t.rows, t.columns]);
    return [
      ...this.#batchIndices(),
      ...sides.map(({ name, operand }) => {
        const start = this.#bindings.start(operand);
        return `let ${name}_base = ${address(operand.view.strides, indices, 0, rank, start)};`;
      }),
    ];
  }

  /** An expression for one element of a side. */
  one({ name }: Side, line: string, k: string): string {
    return `${name}(${name}_base, b, ${line}, ${k})`;
  }

  /** An expression for four elements along `side.vector`, from a line and depth that are multiples of 4 there. */
  four({ name }: Side, line: string, k: string): string {
    return `${name}v(${name}_base, b, ${line}, ${k})`;
  }

  /**
   * An expression for four neighbouring lines at one depth. Lines beyond the last yield anything. `line` is a name.
   */
  lines(side: Side, line: string, k: string): string {
    const count = side.lengths[side.lineAxis]!;
    if (side.vector === "line") return this.four(side, count === 4 ? "0u" : `min(${line}, ${count - 4}u)`, k);
    return `vec4<f32>(${range(4)
      .map((c) => this.one(side, `min(${line} + ${c}u, ${count - 1}u)`, k))
      .join(", ")})`;
  }

  /** The type of four numbers as they are staged. */
  get stagedType(): string {
    return this.#target.matmulPrecision === "f16" ? "vec4<f16>" : "vec4<f32>";
  }

  /** One or four numbers of a side (an expression) in the type they are staged in. */
  staged({ operand }: Side, value: string, width: Width = 4): string {
    if (this.#target.matmulPrecision === "f32") return value;
    return this.#bindings.toF16(this.#bindings.access(operand), value, width);
  }

  /** Staged numbers as the floats that are multiplied. */
  factors(staged: string, width: Width = 4): string {
    if (this.#target.matmulPrecision === "f32") return staged;
    return `${wgslType("f32", width)}(${staged})`;
  }

  /** Numbers of a side, which is not staged, as the floats that are multiplied. */
  rounded(side: Side, value: string, width: Width = 4): string {
    return this.factors(this.staged(side, value, width), width);
  }

  /** A call that treats four finished columns; both may be beyond the last. */
  finish(row: string, column: string, value: string): string {
    return `finish(b, ${row}, ${column}, ${value});`;
  }

  /** The function that `finish` calls. */
  #finishFunctions(): string {
    const { epilogue, origin, batch } = this.#p;
    const [row, column] = this.#swap ? ["n", "m"] : ["m", "n"];
    const writer = new BodyWriter(
      {
        ...epilogue,
        lengths: this.#lengths,
        outerRank: this.#lengths.length,
        origin,
        vectorAxis: this.#vectorAxis,
        indices: [...batch.map((_, d) => `b${d}`), "m", "n"],
      },
      this.#bindings,
      "value",
    );
    const live = writer.needed(
      epilogue.stores.map((s) => s.value),
      () => true,
    );
    const lines = [
      ...this.#batchIndices(),
      ...live.map((i) => writer.compute(i)),
      ...epilogue.stores.map((s) => writer.store(s)),
    ].map((l) => `  ${l}`);
    const inside = allOf([`${row} < ${this.rows}u`, `${column} < ${this.columns}u`]);
    const guard = `  if (!(${inside})) { return; }`;
    const define = (name: string, type: string): string =>
      `fn ${name}(b: u32, ${row}: u32, ${column}: u32, value: ${type}) {\n${guard}\n${lines.join("\n")}\n}`;
    if (this.#vectorAxis !== undefined) return define("finish", "vec4<f32>");
    return `${define("finishOne", "f32")}
fn finish(b: u32, row: u32, column: u32, value: vec4<f32>) {
  for (var c = 0u; c < 4u + P[0].x; c++) { finishOne(b, row, column + c, value[c]); }
}`;
  }

  /** The finished kernel; see `Entry`. */
  kernel(
    main: readonly string[],
    shape: Omit<Entry, "label" | "functions" | "main"> & { readonly variant: string },
  ): Kernel {
    const sides = this.terms.flatMap((t) => [t.rows, t.columns]);
    const functions = [...sides.map((s) => this.#sideFunctions(s)), this.#finishFunctions()];
    const label = `${this.label} (${shape.variant}${this.#target.matmulPrecision === "f16" ? " f16" : ""})`;
    return assemble({ ...shape, label, functions, main }, this.#bindings, this.#target);
  }
}

function vectorAxisOf(side: Side): number | undefined {
  if (side.vector === "none") return undefined;
  return side.vector === "line" ? side.lineAxis : side.depthAxis;
}
