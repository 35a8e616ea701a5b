/**
 * A loop kernel in canonical form: axes of length 1 are removed, neighboring axes that every operand walks as if they were
 * one are merged, padding is clipped to the axes, and buffers are numbered by first use. Two kernels that differ only in
 * their buffers have the same canonical form.
 */
import {
  type ComputeType,
  type DType,
  type Instr,
  type LoopKernel,
  type Moving,
  type Operand,
  operandsOf,
} from "@tiedlora/kernels";
import { at } from "../../assert.ts";

export interface Axis {
  readonly length: number;
  readonly inner: boolean;
}

type Interval = readonly [from: number, to: number];

/** An operand over the axes of the nest. `argument` numbers the kernel's buffers. */
export interface Access {
  readonly argument: number;
  readonly dtype: DType;
  readonly offset: number;
  readonly moving?: readonly Moving[] | undefined;
  readonly strides: readonly number[];
  /** Per axis: the range of valid indices, which is never empty; null if all indices are valid. */
  readonly valid: readonly (Interval | null)[];
}

/** In place of an argument: a matmul's finished panel, in an epilogue. */
export const PRODUCT = -1;
/** In place of an argument: the thread's scratch memory. */
export const SCRATCH = -2;

export interface NestStore {
  readonly to: Access;
  readonly value: number;
  /** Whether it stores once per outer index rather than once per element. */
  readonly row: boolean;
}

export interface Nest {
  readonly axes: readonly Axis[];
  readonly body: readonly Instr[];
  /**
   * By instruction: the operand that a load or `product` reads; null for a load that reads only padding, and for other
   * instructions.
   */
  readonly loads: readonly (Access | null)[];
  /** By instruction: the axis that an `index` reads; -1 if that axis has length 1. */
  readonly indexAxis: readonly number[];
  readonly stores: readonly NestStore[];
  /** The program's buffer of each argument. */
  readonly buffers: readonly number[];
}

/** An operand whose axes can still be dropped and merged. */
interface Draft {
  readonly argument: number;
  readonly dtype: DType;
  readonly offset: number;
  readonly moving?: readonly Moving[] | undefined;
  strides: number[];
  valid: (Interval | null)[];
  dead: boolean;
}

const total = (lengths: readonly number[]): number => lengths.reduce((a, b) => a * b, 1);

function draft(operand: Operand, argument: number, axes: readonly Axis[]): Draft {
  const { offset, moving, strides, valid } = operand.view;
  const isRow = strides.length < axes.length; // has strides for the outer axes alone
  const clipped = axes.map((axis, d): Interval | null => {
    const range = valid?.[d];
    if (!range || (range[0] <= 0 && range[1] >= axis.length)) return null;
    return [Math.max(0, range[0]), Math.min(axis.length, range[1])];
  });
  return {
    argument,
    dtype: operand.dtype,
    offset,
    moving,
    strides: axes.map(({ inner }, d) => (inner && isRow ? 0 : at(strides, d, "stride"))),
    valid: clipped,
    dead: clipped.some((range) => range !== null && range[0] >= range[1]),
  };
}

/** Replaces reductions over a single element by their operand, so that a kernel without inner axes is elementwise. */
function withoutTrivialReduces(body: readonly Instr[]): Instr[] {
  const same = body.map((_, i) => i);
  return body.map((instr, i) => {
    if (instr.op === "reduce") same[i] = at(same, instr.a, "instruction");
    const to = (x: number): number => at(same, x, "instruction");
    if ("c" in instr) return { ...instr, a: to(instr.a), b: to(instr.b), c: to(instr.c) };
    if ("b" in instr) return { ...instr, a: to(instr.a), b: to(instr.b) };
    return "a" in instr ? { ...instr, a: to(instr.a) } : instr;
  });
}

class Canonicalizer {
  axes: Axis[];
  readonly drafts: Draft[] = [];
  readonly buffers: number[] = [];
  /** Canonical axis of each original axis; -1 when dropped. */
  readonly axisOf: number[];
  /** Axes that an `index` instruction reads; they are not merged. */
  readonly #indexed: Set<number>;

  constructor(kernel: LoopKernel) {
    this.axes = [
      ...kernel.outer.map((length) => ({ length, inner: false })),
      ...kernel.inner.map((length) => ({ length, inner: true })),
    ];
    this.axisOf = this.axes.map((_, i) => i);
    this.#indexed = new Set(kernel.body.flatMap((instr) => (instr.op === "index" ? [instr.axis] : [])));
  }

  add(operand: Operand): Draft {
    let argument = this.buffers.indexOf(operand.buffer);
    if (argument < 0) argument = this.buffers.push(operand.buffer) - 1;
    const access = draft(operand, argument, this.axes);
    this.drafts.push(access);
    return access;
  }

  #remove(axis: number): void {
    this.axes.splice(axis, 1);
    for (const d of this.drafts) {
      d.strides.splice(axis, 1);
      d.valid.splice(axis, 1);
    }
    this.axisOf.forEach((a, i) => {
      if (a === axis) this.axisOf[i] = -1;
      else if (a > axis) this.axisOf[i] = a - 1;
    });
  }

  #isIndexed(axis: number): boolean {
    return this.axisOf.some((a, original) => a === axis && this.#indexed.has(original));
  }

  /** Whether every operand walks axes `a` and `a + 1` as if they were one. */
  #mergeable(a: number): boolean {
    const [outer, inner] = [this.axes[a], this.axes[a + 1]];
    if (!outer || !inner || outer.inner !== inner.inner || this.#isIndexed(a) || this.#isIndexed(a + 1))
      return false;
    return this.drafts.every(
      (d) =>
        d.dead || (d.valid[a + 1] === null && d.strides[a] === at(d.strides, a + 1, "stride") * inner.length),
    );
  }

  /** Removes axis `a`, whose index is folded into axis `a + 1`. */
  #merge(a: number): void {
    const { length, inner } = at(this.axes, a + 1, "axis");
    for (const d of this.drafts) {
      const range = d.valid[a];
      d.valid[a + 1] = range ? [range[0] * length, range[1] * length] : null;
    }
    this.axes[a + 1] = { length: length * at(this.axes, a, "axis").length, inner };
    this.#remove(a);
  }

  /** Drops and merges axes. With `keepLast`, the last axis stays as it is, and the others keep their flattened order. */
  run(keepLast: boolean): void {
    const last = this.axes.length - (keepLast ? 2 : 1);
    for (let a = last; a >= 0; a--) if (this.axes[a]?.length === 1) this.#remove(a);
    for (let a = this.axes.length - (keepLast ? 3 : 2); a >= 0; a--) if (this.#mergeable(a)) this.#merge(a);
  }

  /**
   * Adds a matmul's finished panel as an operand. Its rows are all axes but the last, flattened, and are `rowStride` elements
   * apart.
   */
  addProduct(rowStride: number): Draft {
    const strides: number[] = [1];
    let stride = rowStride;
    for (let a = this.axes.length - 2; a >= 0; a--) {
      strides.unshift(stride);
      stride *= at(this.axes, a, "axis").length;
    }
    const valid = this.axes.map(() => null);
    const access: Draft = { argument: PRODUCT, dtype: "f32", offset: 0, strides, valid, dead: false };
    this.drafts.push(access);
    return access;
  }
}

export interface CanonicalOptions {
  /** For a matmul epilogue: elements between rows of the panel that `product` reads. If given, the last axis is not merged. */
  readonly productRowStride?: number;
}

/** The canonical form of `kernel`. */
export function canonicalize(kernel: LoopKernel, options: CanonicalOptions = {}): Nest {
  const { productRowStride } = options;
  const canon = new Canonicalizer(kernel);
  const elementwise = total(kernel.inner) === 1;
  const isTrivial = elementwise && kernel.body.some(({ op }) => op === "reduce");
  const body = isTrivial ? withoutTrivialReduces(kernel.body) : kernel.body;
  const loads = body.map((instr) => {
    if (instr.op === "load") return canon.add(instr.from);
    return instr.op === "product" && productRowStride !== undefined
      ? canon.addProduct(productRowStride)
      : null;
  });
  const stores = kernel.stores.map(({ to, value }) => ({
    to: canon.add(to),
    value: elementwise ? resolve(kernel.body, value) : value,
    row: elementwise || to.view.strides.length === kernel.outer.length,
  }));
  canon.run(productRowStride !== undefined);
  return {
    axes: canon.axes,
    body,
    loads: loads.map((access) => (access === null || access.dead ? null : access)),
    indexAxis: body.map((instr) => (instr.op === "index" ? at(canon.axisOf, instr.axis, "axis") : -1)),
    stores: stores.filter((store) => !store.to.dead),
    buffers: canon.buffers,
  };
}

/** Follows reductions over a single element to the value that they reduce. */
function resolve(body: readonly Instr[], value: number): number {
  const instr = body[value];
  return instr?.op === "reduce" ? resolve(body, instr.a) : value;
}

/**
 * All instructions that `roots` depend on, roots included, ascending. Leaves out those for which `known` holds, and does not
 * follow their operands.
 */
export function closure(
  body: readonly Instr[],
  roots: readonly number[],
  known: (i: number) => boolean = () => false,
): number[] {
  const needed = new Uint8Array(body.length);
  const need = (i: number): void => {
    if (i < body.length && !known(i)) needed[i] = 1;
  };
  for (const root of roots) need(root);
  for (let i = body.length - 1; i >= 0; i--) {
    if (needed[i] === 1) for (const a of operandsOf(at(body, i, "instruction"))) need(a); // operands come before
  }
  return Array.from(body.keys()).filter((i) => needed[i] === 1);
}

/** The type an instruction computes with; this backend has no f64. */
export function typeOf(body: readonly Instr[], i: number): Exclude<ComputeType, "f64"> {
  const type = body[i]?.dtype ?? "f32";
  if (type === "f64") {
    throw new Error(
      "the CPU backend has no f64: cast to f32, or use the reference backend, which computes in f64",
    );
  }
  return type;
}

/** Elements from one index of an axis to the next; 0 along the axis that a schedule may add to those of the nest. */
export function strideAlong({ strides }: Access, axis: number): number {
  return axis === strides.length ? 0 : at(strides, axis, "stride");
}
