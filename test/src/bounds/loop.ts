/** Evaluates loop kernels and epilogues with error bounds, one instruction at a time over blocks of rows. */
import { type Instr, type LoopKernel, product, roundTo, type Store } from "@tiedlora/core";
import { type Arithmetic, isFloatType } from "./arithmetic.ts";
import { type BoundsBuffer, INVALID, offsetsOf, open } from "./memory.ts";

/** Values and their error bounds. */
export interface Bounded {
  readonly values: Float64Array;
  readonly errors: Float64Array;
}

export function bounded(length: number): Bounded {
  return { values: new Float64Array(length), errors: new Float64Array(length) };
}

/** The environment of a body: its iteration space, and the buffers and scalars that it refers to. */
export interface Scope {
  readonly arithmetic: Arithmetic;
  readonly outer: readonly number[];
  readonly inner: readonly number[];
  readonly buffers: readonly BoundsBuffer[];
  readonly scalars: ArrayLike<number>;
}

/** The number of elements that are evaluated together. */
const BLOCK = 1 << 15;

export function runLoop(kernel: LoopKernel, scope: Scope): void {
  const width = product(kernel.inner);
  const rows = product(kernel.outer);
  const step = Math.max(1, Math.floor(BLOCK / width));
  for (let first = 0; first < rows; first += step) {
    runBlock(kernel.body, kernel.stores, scope, first, Math.min(step, rows - first));
  }
}

/** Evaluates rows `first` … `first + rows - 1`; `finished` holds the elements of a matmul, for its epilogue. */
export function runBlock(
  body: readonly Instr[],
  stores: readonly Store[],
  scope: Scope,
  first: number,
  rows: number,
  finished?: Bounded,
): void {
  const block = new Block(body, scope, first, rows, finished);
  for (const store of stores) block.store(store);
}

class Block {
  readonly #results: Bounded[] = [];
  readonly #body: readonly Instr[];
  readonly #scope: Scope;
  readonly #first: number;
  readonly #rows: number;
  readonly #width: number;

  constructor(body: readonly Instr[], scope: Scope, first: number, rows: number, finished?: Bounded) {
    this.#body = body;
    this.#scope = scope;
    this.#first = first;
    this.#rows = rows;
    this.#width = product(scope.inner);
    for (const instr of body) this.#results.push(this.#evaluate(instr, finished));
  }

  store({ to, value }: Store): void {
    const { arithmetic, outer, inner, buffers } = this.#scope;
    const perRow = to.view.strides.length === outer.length;
    const at = perRow
      ? offsetsOf(to.view, outer, this.#first, this.#rows)
      : offsetsOf(to.view, [...outer, ...inner], this.#first * this.#width, this.#rows * this.#width);
    const target = open(to, buffers);
    const from = this.#results[value]!;
    const dtype = this.#body[value]!.dtype;
    const step = perRow ? this.#width : 1;
    at.forEach((offset, i) => {
      if (offset === INVALID) return;
      if (offset < 0 || offset >= target.values.length)
        throw new RangeError(`a store reaches element ${offset}`);
      target.values[offset] = arithmetic.cast(
        dtype,
        to.dtype,
        from.values[i * step]!,
        from.errors[i * step]!,
      );
      target.errors[offset] = arithmetic.error;
    });
  }

  #evaluate(instr: Instr, finished: Bounded | undefined): Bounded {
    const length = this.#rows * this.#width;
    switch (instr.op) {
      case "load":
        return this.#load(instr);
      case "const":
        return constant(
          length,
          instr.value,
          instr.dtype === "f32" ? roundTo("f32", instr.value) : instr.value,
        );
      case "scalar": {
        const value = this.#scope.scalars[instr.slot]!;
        return constant(length, roundTo(instr.dtype, value), roundTo(instr.dtype, value));
      }
      case "index": {
        const axes = [...this.#scope.outer, ...this.#scope.inner];
        const strides = axes.map((_, axis) => Number(axis === instr.axis));
        const at = offsetsOf({ offset: 0, strides }, axes, this.#first * this.#width, length);
        return { values: Float64Array.from(at), errors: new Float64Array(length) };
      }
      case "product":
        if (!finished) throw new Error('"product" is for matmul epilogues only');
        return finished;
      case "reduce":
        return this.#reduce(instr);
      default:
        return this.#map(instr);
    }
  }

  #load({ from }: Extract<Instr, { op: "load" }>): Bounded {
    const { outer, inner, buffers } = this.#scope;
    const length = this.#rows * this.#width;
    const source = open(from, buffers);
    const at = offsetsOf(from.view, [...outer, ...inner], this.#first * this.#width, length);
    const out = bounded(length);
    at.forEach((offset, i) => {
      if (offset === INVALID) return;
      if (offset < 0 || offset >= source.values.length)
        throw new RangeError(`a load reaches element ${offset}`);
      out.values[i] = source.values[offset]!;
      out.errors[i] = source.errors[offset]!;
    });
    return out;
  }

  #map(instr: Exclude<Instr, { op: "load" | "const" | "scalar" | "index" | "product" | "reduce" }>): Bounded {
    const { arithmetic } = this.#scope;
    const out = bounded(this.#rows * this.#width);
    const a = this.#results[instr.a]!;
    const from = this.#body[instr.a]!.dtype;
    const b = "b" in instr ? this.#results[instr.b]! : a;
    const c = "c" in instr ? this.#results[instr.c]! : a;
    for (let i = 0; i < out.values.length; i++) {
      const [x, ex] = [a.values[i]!, a.errors[i]!];
      const [y, ey] = [b.values[i]!, b.errors[i]!];
      if (instr.op === "where") out.values[i] = arithmetic.where(x, ex, y, ey, c.values[i]!, c.errors[i]!);
      else if (instr.op === "cast") out.values[i] = arithmetic.cast(from, instr.to, x, ex);
      else if ("b" in instr) out.values[i] = arithmetic.binary(instr.op, from, x, ex, y, ey);
      else out.values[i] = arithmetic.unary(instr.op, from, x, ex);
      out.errors[i] = arithmetic.error;
    }
    return out;
  }

  #reduce({ kind, a, dtype }: Extract<Instr, { op: "reduce" }>): Bounded {
    const { arithmetic } = this.#scope;
    const out = bounded(this.#rows * this.#width);
    const fold = kind === "sum" ? foldSum : kind === "prod" ? foldProduct : foldExtreme;
    for (let row = 0; row < this.#rows; row++) {
      const [from, to] = [row * this.#width, (row + 1) * this.#width];
      const values = this.#results[a]!.values.subarray(from, to);
      const errors = this.#results[a]!.errors.subarray(from, to);
      out.values.fill(fold(arithmetic, dtype, values, errors, kind), from, to);
      out.errors.fill(arithmetic.error, from, to);
    }
    return out;
  }
}

function constant(length: number, exact: number, rounded: number): Bounded {
  return {
    values: new Float64Array(length).fill(rounded),
    errors: new Float64Array(length).fill(exact === rounded ? 0 : Math.abs(exact - rounded) || 0),
  };
}

type Fold = (
  arithmetic: Arithmetic,
  dtype: Instr["dtype"],
  values: Float64Array,
  errors: Float64Array,
  kind: "sum" | "prod" | "max" | "min",
) => number;

const foldSum: Fold = (arithmetic, dtype, values, errors) => {
  let [sum, size, error, whole] = [0, 0, 0, true];
  for (let i = 0; i < values.length; i++) {
    const x = values[i]!;
    sum = dtype === "i32" ? (sum + x) | 0 : dtype === "u32" ? (sum + x) >>> 0 : sum + x;
    if (Number.isFinite(x)) size += Math.abs(x) + errors[i]!;
    if (Number.isNaN(x) && errors[i] === 0) return arithmetic.binary("add", dtype, x, 0, x, 0); // certainly NaN
    error += errors[i]!;
    whole &&= Number.isInteger(x);
  }
  return arithmetic.sum(dtype, sum, size, values.length, error, whole);
};

const foldProduct: Fold = (arithmetic, dtype, values, errors) => {
  // in another order, a partial product may leave the range of the type although the whole product does not
  let [result, high, error, largest, smallest] = [1, 1, 0, 1, 1];
  for (let i = 0; i < values.length; i++) {
    if (Number.isNaN(values[i]) && errors[i] === 0) return arithmetic.binary("mul", dtype, NaN, 0, NaN, 0);
    if (isFloatType(dtype)) result *= values[i]!;
    else result = dtype === "i32" ? Math.imul(result, values[i]!) : Math.imul(result, values[i]!) >>> 0;
    const size = Math.abs(values[i]!) + errors[i]!;
    high *= size;
    error += errors[i]!;
    largest *= Math.max(1, size);
    smallest *= size === 0 ? 1 : Math.min(1, size);
  }
  const y = arithmetic.product(dtype, result, high, values.length, error);
  if (dtype === "f32" && largest > 1e38) arithmetic.error = Infinity;
  if (dtype === "f32" && smallest < 1e-37) arithmetic.error += high;
  return y;
};

const foldExtreme: Fold = (arithmetic, dtype, values, errors, kind) => {
  const op = kind === "max" ? "max" : "min";
  let [result, error] = [values[0]!, errors[0]!];
  for (let i = 1; i < values.length; i++) {
    result = arithmetic.binary(op, dtype, result, error, values[i]!, errors[i]!);
    error = arithmetic.error;
  }
  arithmetic.error = error;
  return result;
};
