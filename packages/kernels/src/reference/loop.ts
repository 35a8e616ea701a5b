/** Loop kernels and matmul epilogues, evaluated row by row in float64. */
import { roundTo } from "../dtype.ts";
import type { Epilogue, Instr, LoopKernel, Operand, Store } from "../kernel.ts";
import { product } from "../shape.ts";
import { BINARY, FOLD, reduceIdentity, UNARY } from "./arithmetic.ts";
import { convert, elements, type Elements, INVALID, offsets } from "./elements.ts";

/** One operand of a kernel: the offsets of its rows, and the offsets of elements within a row. */
class Access {
  readonly #rows: Int32Array;
  readonly #columns: Int32Array;
  readonly #data: Elements;

  constructor(
    operand: Operand,
    outer: readonly number[],
    inner: readonly number[],
    buffers: readonly ArrayBuffer[],
  ) {
    this.#rows = offsets(operand, outer, 0, operand.view.offset);
    this.#columns = offsets(operand, inner, outer.length, 0);
    this.#data = elements(buffers[operand.buffer]!, operand.dtype);
  }

  load(row: number, to: Float64Array): void {
    const start = this.#rows[row]!;
    for (let j = 0; j < to.length; j++) {
      const column = this.#columns[j]!;
      to[j] = start === INVALID || column === INVALID ? 0 : this.#data.get(start + column);
    }
  }

  store(row: number, from: Float64Array): void {
    const start = this.#rows[row]!;
    if (start === INVALID) return;
    for (let j = 0; j < this.#columns.length; j++) {
      const column = this.#columns[j]!;
      if (column !== INVALID) this.#data.set(start + column, from[j]!);
    }
  }
}

/** Evaluates bodies one row (all inner elements of one outer index) at a time. */
class RowEvaluator {
  readonly #body: readonly Instr[];
  readonly #outer: readonly number[];
  readonly #values: Float64Array[];
  readonly #loads: (Access | undefined)[];
  readonly #innerIndex: readonly Int32Array[];
  readonly #scalars: ArrayLike<number>;

  constructor(
    body: readonly Instr[],
    outer: readonly number[],
    inner: readonly number[],
    buffers: readonly ArrayBuffer[],
    scalars: ArrayLike<number>,
  ) {
    this.#body = body;
    this.#outer = outer;
    this.#scalars = scalars;
    this.#values = body.map(() => new Float64Array(product(inner)));
    this.#loads = body.map((i) => (i.op === "load" ? new Access(i.from, outer, inner, buffers) : undefined));
    this.#innerIndex = inner.map((_n, axis) => {
      const strides = [...outer, ...inner].map((_, d) => Number(d === outer.length + axis));
      return offsets({ buffer: 0, dtype: "i32", view: { offset: 0, strides } }, inner, outer.length, 0);
    });
  }

  /** The values of every instruction in `row`. In a matmul's epilogue, `product_` is that row of the finished product. */
  run(row: number, product_?: Float64Array): readonly Float64Array[] {
    this.#body.forEach((instr, i) => this.#evaluate(instr, this.#values[i]!, row, this.#loads[i], product_));
    return this.#values;
  }

  #evaluate(instr: Instr, out: Float64Array, row: number, access?: Access, product_?: Float64Array): void {
    switch (instr.op) {
      case "load":
        return access!.load(row, out);
      case "const":
        return void out.fill(instr.value);
      case "scalar":
        return void out.fill(
          roundTo(instr.dtype === "f32" ? "f32" : instr.dtype, this.#scalars[instr.slot]!),
        );
      case "product":
        return out.set(product_!);
      case "index":
        if (instr.axis >= this.#outer.length) out.set(this.#innerIndex[instr.axis - this.#outer.length]!);
        else out.fill(indexAlong(row, this.#outer, instr.axis));
        return;
      case "where": {
        const [a, b, c] = [this.#values[instr.a]!, this.#values[instr.b]!, this.#values[instr.c]!];
        for (let j = 0; j < out.length; j++) out[j] = a[j] !== 0 ? b[j]! : c[j]!;
        return;
      }
      case "cast": {
        const [a, from] = [this.#values[instr.a]!, this.#body[instr.a]!.dtype];
        for (let j = 0; j < out.length; j++) out[j] = convert(a[j]!, from, instr.to);
        return;
      }
      case "reduce": {
        const fold = BINARY[instr.dtype][FOLD[instr.kind]];
        let sum = reduceIdentity(instr.kind, instr.dtype);
        for (const x of this.#values[instr.a]!) sum = fold(sum, x);
        return void out.fill(sum);
      }
      default:
        if ("b" in instr) {
          const f = BINARY[this.#body[instr.a]!.dtype][instr.op];
          const [a, b] = [this.#values[instr.a]!, this.#values[instr.b]!];
          for (let j = 0; j < out.length; j++) out[j] = f(a[j]!, b[j]!);
        } else {
          const [f, a] = [UNARY[instr.op], this.#values[instr.a]!];
          const wraps = instr.dtype === "i32" || instr.dtype === "u32";
          for (let j = 0; j < out.length; j++) out[j] = wraps ? roundTo(instr.dtype, f(a[j]!)) : f(a[j]!);
        }
    }
  }
}

function indexAlong(linear: number, shape: readonly number[], axis: number): number {
  return Math.floor(linear / product(shape.slice(axis + 1))) % shape[axis]!;
}

/** Runs a loop kernel over buffers of raw bytes. */
export function runLoop(
  kernel: LoopKernel,
  buffers: readonly ArrayBuffer[],
  scalars: ArrayLike<number>,
): void {
  // An elementwise kernel is evaluated with its last axis as the row.
  const split = kernel.inner.length === 0 ? Math.max(kernel.outer.length - 1, 0) : kernel.outer.length;
  const axes = [...kernel.outer, ...kernel.inner];
  const [outer, inner] = [axes.slice(0, split), axes.slice(split)];
  const rows = new RowEvaluator(kernel.body, outer, inner, buffers, scalars);
  const stores = kernel.stores.map((store) => storeAccess(store, outer, inner, buffers));
  for (let row = 0; row < product(outer); row++) {
    const values = rows.run(row);
    kernel.stores.forEach((store, i) => stores[i]!.store(row, values[store.value]!));
  }
}

function storeAccess(
  store: Store,
  outer: readonly number[],
  inner: readonly number[],
  buffers: readonly ArrayBuffer[],
): Access {
  const perRow = store.to.view.strides.length === outer.length;
  return new Access(store.to, outer, perRow ? [] : inner, buffers);
}

/** Returns a function that runs a matmul's epilogue on one finished row of the product; `axes` is `[...batch, m, n]`. */
export function epilogueRunner(
  epilogue: Epilogue,
  axes: readonly number[],
  buffers: readonly ArrayBuffer[],
  scalars: ArrayLike<number>,
): (row: number, product_: Float64Array) => void {
  const [outer, inner] = [axes.slice(0, -1), axes.slice(-1)];
  const rows = new RowEvaluator(epilogue.body, outer, inner, buffers, scalars);
  const stores = epilogue.stores.map((store) => storeAccess(store, outer, inner, buffers));
  return (row, product_) => {
    const values = rows.run(row, product_);
    epilogue.stores.forEach((store, i) => stores[i]!.store(row, values[store.value]!));
  };
}
