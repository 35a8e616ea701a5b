/**
 * Splits long reductions with few results into two stages: partial results over parts of a fixed length, then their
 * combination. The parts run in parallel, and partial sums keep the rounding error of a long sum small. The cuts depend only
 * on shapes, so the result does not depend on the number of threads.
 */
import {
  BYTES,
  type DType,
  type Instr,
  type LoopKernel,
  type Operand,
  operandsOf,
  type Store,
} from "@tiedlora/kernels";
import { at } from "../../assert.ts";
import { closure } from "./nest.ts";

/** Approximate number of elements per part. */
const PART = 16384;
/** Fewer independent results than this cannot occupy the threads. */
const FEW_RESULTS = 32;
/** With more elements than this, a single accumulator loses too many digits. */
const LONG = 2 ** 20;

export interface SplitKernels {
  readonly kernels: readonly LoopKernel[];
  /** Bytes of each buffer to add to the program, numbered from `firstBuffer`. */
  readonly temps: readonly number[];
}

const product = (lengths: readonly number[]): number => lengths.reduce((a, b) => a * b, 1);

/** The reductions of a kernel, if one pass computes all of them and nothing is stored per element; otherwise null. */
function onePass(kernel: LoopKernel): number[] | null {
  const { body } = kernel;
  const reduces = body.flatMap((instr, i) => (instr.op === "reduce" ? [i] : []));
  const roots = reduces.flatMap((r) => operandsOf(body[r] as Instr));
  const nested = closure(body, roots).some((i) => body[i]?.op === "reduce");
  const perElement = kernel.stores.some((s) => s.to.view.strides.length !== kernel.outer.length);
  return reduces.length === 0 || nested || perElement ? null : reduces;
}

/** The inner axis to cut: the longest one without padding; null if there is none. */
function cutAxis(kernel: LoopKernel): number | null {
  let best: number | null = null;
  kernel.inner.forEach((length, a) => {
    const padded = kernel.body.some(
      (instr) => instr.op === "load" && (instr.from.view.valid?.[kernel.outer.length + a] ?? null) !== null,
    );
    if (!padded && length > 1 && length > (best === null ? 0 : at(kernel.inner, best, "axis"))) best = a;
  });
  return best;
}

/** The two or three kernels that compute what `kernel` does, or null where it is better left whole. */
export function splitReduction(kernel: LoopKernel, firstBuffer: number): SplitKernels | null {
  const elements = product(kernel.inner);
  const results = product(kernel.outer);
  if (elements < 2 * PART || (results >= FEW_RESULTS && elements < LONG)) return null;
  const reduces = onePass(kernel);
  const axis = cutAxis(kernel);
  if (reduces === null || axis === null) return null;
  const length = at(kernel.inner, axis, "axis");
  const part = Math.min(length, Math.max(1, Math.round((PART * length) / elements)));
  const whole = Math.floor(length / part);
  const rest = length - whole * part;
  const parts = whole + (rest > 0 ? 1 : 0);
  if (parts < 2) return null;

  const partial = reduces.map((r, i) => partialOperand(kernel, r, firstBuffer + i, parts));
  const cut = { kernel, axis, reduces, partial, part };
  const kernels = [partKernel(cut, 0, whole, part)];
  if (rest > 0) kernels.push(partKernel(cut, whole, 1, rest));
  kernels.push(combineKernel(kernel, reduces, partial, parts));
  return { kernels, temps: partial.map((p) => results * parts * BYTES[p.dtype]) };
}

interface Cut {
  readonly kernel: LoopKernel;
  readonly axis: number;
  readonly reduces: readonly number[];
  readonly partial: readonly Operand[];
  /** Length of a whole part. */
  readonly part: number;
}

/** The partial results of reduction `r`: [...outer, parts]. */
function partialOperand(kernel: LoopKernel, r: number, buffer: number, parts: number): Operand {
  const strides: number[] = [1];
  let stride = parts;
  for (const length of [...kernel.outer].reverse()) {
    strides.unshift(stride);
    stride *= length;
  }
  const dtype: DType = kernel.body[r]?.dtype ?? "f32";
  return { buffer, dtype, view: { offset: 0, strides } };
}

/** The kernel that computes the parts [first, first + count), each `length` long. */
function partKernel(
  { kernel, axis, reduces, partial, part }: Cut,
  first: number,
  count: number,
  length: number,
): LoopKernel {
  const outerRank = kernel.outer.length;
  const body: Instr[] = [];
  const renumbered = new Map<number, number>(); // old instruction -> new
  const push = (instr: Instr): number => body.push(instr) - 1;
  const roots = reduces.flatMap((r) => operandsOf(kernel.body[r] as Instr));
  for (const i of closure(kernel.body, roots)) {
    const instr = kernel.body[i] as Instr;
    if (instr.op === "load")
      renumbered.set(i, push({ ...instr, from: cutOperand(instr.from, outerRank, axis, first, part) }));
    else if (instr.op === "index" && instr.axis === outerRank + axis) {
      const which = push({ op: "index", axis: outerRank, dtype: "i32" });
      const scale = push({ op: "const", value: part, dtype: "i32" });
      const base = push({ op: "const", value: first * part, dtype: "i32" });
      const within = push({ op: "index", axis: instr.axis + 1, dtype: "i32" });
      const start = push({ op: "mul", a: which, b: scale, dtype: "i32" });
      const moved = push({ op: "add", a: start, b: within, dtype: "i32" });
      renumbered.set(i, push({ op: "add", a: moved, b: base, dtype: "i32" }));
    } else if (instr.op === "index") {
      renumbered.set(i, push({ ...instr, axis: instr.axis < outerRank ? instr.axis : instr.axis + 1 }));
    } else renumbered.set(i, push(renumber(instr, renumbered)));
  }
  const stores: Store[] = reduces.map((r, x) => {
    const value = push(renumber(kernel.body[r] as Instr, renumbered));
    const to = partial[x] as Operand;
    return { to: { ...to, view: { ...to.view, offset: first } }, value };
  });
  const inner = kernel.inner.map((n, a) => (a === axis ? length : n));
  return { type: "loop", outer: [...kernel.outer, count], inner, body, stores };
}

function cutOperand(operand: Operand, outerRank: number, axis: number, first: number, part: number): Operand {
  const { strides, valid, ...start } = operand.view;
  if (strides.length === outerRank) return operand;
  const along = at(strides, outerRank + axis, "stride");
  const view = {
    ...start,
    offset: start.offset + first * part * along,
    strides: [...strides.slice(0, outerRank), part * along, ...strides.slice(outerRank)],
    ...(valid && { valid: [...valid.slice(0, outerRank), null, ...valid.slice(outerRank)] }),
  };
  return { ...operand, view };
}

function renumber(instr: Instr, renumbered: ReadonlyMap<number, number>): Instr {
  const to = (i: number): number => newNumber(renumbered, i);
  if ("c" in instr) return { ...instr, a: to(instr.a), b: to(instr.b), c: to(instr.c) };
  if ("b" in instr) return { ...instr, a: to(instr.a), b: to(instr.b) };
  return "a" in instr ? { ...instr, a: to(instr.a) } : instr;
}

function newNumber(renumbered: ReadonlyMap<number, number>, i: number): number {
  const to = renumbered.get(i);
  if (to === undefined)
    throw new Error(`a bug in the CPU backend: instruction ${i} is not carried over; please report it`);
  return to;
}

/** The kernel that folds the partial results, then computes what the original kernel computes from its reductions. */
function combineKernel(
  kernel: LoopKernel,
  reduces: readonly number[],
  partial: readonly Operand[],
  parts: number,
): LoopKernel {
  const body: Instr[] = [];
  const renumbered = new Map<number, number>();
  reduces.forEach((r, x) => {
    const instr = kernel.body[r];
    if (instr?.op !== "reduce") return;
    const load = body.push({ op: "load", from: partial[x] as Operand, dtype: instr.dtype }) - 1;
    renumbered.set(r, body.push({ ...instr, a: load }) - 1);
  });
  const needed = closure(
    kernel.body,
    kernel.stores.map((s) => s.value),
    (i) => renumbered.has(i),
  );
  for (const i of needed) {
    const instr = kernel.body[i] as Instr;
    renumbered.set(
      i,
      body.push(instr.op === "load" ? rowLoad(instr, kernel) : renumber(instr, renumbered)) - 1,
    );
  }
  const stores = kernel.stores.map((s) => ({ ...s, value: newNumber(renumbered, s.value) }));
  return { type: "loop", outer: kernel.outer, inner: [parts], body, stores };
}

/** A load that does not depend on the inner indices, rewritten for the outer axes and the axis of parts. */
function rowLoad(instr: Extract<Instr, { op: "load" }>, kernel: LoopKernel): Instr {
  const { strides, valid, ...start } = instr.from.view;
  const rank = kernel.outer.length;
  const view = {
    ...start,
    strides: [...strides.slice(0, rank), 0],
    ...(valid && { valid: [...valid.slice(0, rank), null] }),
  };
  return { ...instr, from: { ...instr.from, view } };
}
