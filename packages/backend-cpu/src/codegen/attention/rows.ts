/** Attention row by row: softmax over a block's scores, its gradient, and copying results out. Panels are f32. */
import { BYTES, type Operand } from "@tiedlora/kernels";
import { at } from "../../assert.ts";
import { type Expr, type Fn, i32s, type Int, type Local, type Module } from "../assembler.ts";
import { byteStride, COLUMN, type Geometry, ROW } from "./geometry.ts";
import { AttentionSizes, type AttentionStep } from "./numbers.ts";
import { f32x4, i32, i32x4, memory, v128 } from "../instructions.ts";
import { loadLanes, loadSplat, storeLanes, storeOne } from "../loops/load-store.ts";
import { horizontal } from "../loops/values.ts";
import { VectorMath } from "../math.ts";

/** Elements from one column to the next. */
const columnStride = ({ view }: Operand): number => at(view.strides, COLUMN, "stride");

/** Emits the code for one row of scores: it counts the keys that the row's query sees, prepares the row, and clears its end. */
class Row {
  readonly f: Fn;
  readonly math: VectorMath;
  readonly sizes: AttentionSizes;
  readonly #g: Geometry;

  constructor(f: Fn, math: VectorMath, args: Local, step: AttentionStep) {
    this.f = f;
    this.math = math;
    this.sizes = new AttentionSizes(f, args, step);
    this.#g = step.g;
  }

  /** How many of the `count` keys from `first` query `i` sees. */
  visible(i: Local, first: Int = 0, count: Int = this.sizes.int("kv")): Local {
    const n = this.f.local("i32", count);
    if (this.#g.params.causal) {
      this.f.set(n, i32.sub(i32.add(i32.add(i, this.sizes.int("shift")), 1), first));
      this.f.set(n, i32.select(n, count, i32.lt_s(n, count)));
      this.f.set(n, i32.select(n, 0, i32.ge_s(n, 0)));
    }
    return n;
  }

  /** Whether scores are scaled, and biased, in a separate pass. Otherwise the exponential's argument includes the scale. */
  prescaled(bias: Operand | null): boolean {
    return bias !== null || !(this.#g.params.scale > 0);
  }

  /**
   * Scales and biases the row in place if it is `prescaled`, then writes -inf past `visible` in the last vector that has
   * visible elements. Returns the address of the end of that vector.
   */
  prepare(row: Local, visible: Local, bias: Operand | null, biasRow: Local): Local {
    const { f, math } = this;
    const g = this.#g;
    const end = f.bind(i32.add(row, i32.shl(i32.and(i32.add(visible, 3), -4), 2)));
    if (this.prescaled(bias)) {
      const p = f.local("i32", row);
      const b = f.local("i32", biasRow);
      const stride = bias === null ? 0 : columnStride(bias);
      f.while(
        () => i32.lt_u(p, end),
        () => {
          const scaled = f32x4.mul(v128.load(p), math.k(g.params.scale));
          v128.store(
            f,
            p,
            bias === null ? scaled : f32x4.add(scaled, loadLanes(math, bias.dtype, b, stride, 0)),
          );
          f.add(p, 16);
          if (bias !== null) f.add(b, 4 * stride * BYTES[bias.dtype]);
        },
      );
    }
    f.if(i32.and(visible, 3), () => {
      const iota = f.constant("iota0", v128.const32([0, 1, 2, 3]));
      const seen = i32x4.lt_s(iota, i32x4.splat(i32.and(visible, 3)));
      const last = f.bind(i32.sub(end, 16));
      v128.store(f, last, v128.bitselect(v128.load(last), math.k(-Infinity), seen));
    });
    return end;
  }

  /** Writes zeros from the address `from` to the end of the panel's `columns`. */
  clear(row: Local, from: Local, columns: Local): void {
    memory.fill(this.f, from, 0, i32.sub(i32.add(row, i32.shl(columns, 2)), from));
  }
}

/**
 * Runs `body` over the vectors from the first of `pointers` to `end`: `unroll` at a time, then one by one. All pointers
 * advance together.
 */
function overVectors(
  f: Fn,
  pointers: readonly Local[],
  end: Local,
  unroll: number,
  body: (unroll: number) => void,
): void {
  const [first] = pointers as [Local];
  for (const n of unroll > 1 ? [unroll, 1] : [1]) {
    f.while(
      () => i32.le_u(i32.add(first, 16 * n), end),
      () => {
        body(n);
        for (const p of pointers) f.add(p, 16 * n);
      },
    );
  }
}

/**
 * softmax(args, scores, rows, firstQuery, columns, L, factors, bias): replaces scores by exp(score - max), or by zero where hidden.
 * Writes max + log(the sum of these) to L, and 1 / that sum to `factors`.
 */
export function emitSoftmaxRows(
  module: Module,
  step: AttentionStep,
  { L, bias }: { readonly L: Operand; readonly bias: Operand | null },
): Fn {
  const { g, fma } = step;
  return module.fn(null, i32s(8), [], (f, args, row, rows, i, columns, l, factor, biasRow) => {
    const math = new VectorMath(f, fma);
    const helper = new Row(f, math, args, step);
    const { sizes } = helper;
    const scale = helper.prescaled(bias) ? 1 : g.params.scale;
    const [p, left] = [f.local("i32"), f.local("i32", rows)];
    const UNROLL = 4;
    const partial = Array.from({ length: UNROLL }, () => f.local("v128"));
    const [total] = partial as [Local];
    const fold = (op: (a: Expr, b: Expr) => Expr): void => {
      for (const other of partial.slice(1)) f.set(total, op(total, other));
    };
    f.while(
      () => left,
      () => {
        const visible = helper.visible(i);
        const end = helper.prepare(row, visible, bias, biasRow);
        for (const x of partial) f.set(x, math.k(-Infinity));
        f.set(p, row);
        overVectors(f, [p], end, UNROLL, (n) => {
          for (let u = 0; u < n; u++)
            f.set(partial[u] as Local, f32x4.pmax(partial[u] as Local, v128.load(p, 16 * u)));
        });
        fold(f32x4.pmax);
        const max = f.bind(f32x4.mul(horizontal(f, "max", "f32", total), math.k(scale)));
        const shift = f.bind(f32x4.neg(max));
        for (const x of partial) f.set(x, math.k(0));
        f.set(p, row);
        overVectors(f, [p], end, 2, (n) => {
          for (let u = 0; u < n; u++) {
            const e = f.bind(math.exp(math.madd(v128.load(p, 16 * u), math.k(scale), shift)));
            v128.store(f, p, e, 16 * u);
            f.set(partial[u] as Local, f32x4.add(partial[u] as Local, e));
          }
        });
        helper.clear(row, end, columns);
        fold(f32x4.add);
        const sum = f.bind(horizontal(f, "sum", "f32", total));
        storeOne(f, math, L.dtype, l, f32x4.add(max, math.log(sum)), "f32");
        v128.store32_lane(f, factor, f32x4.div(math.k(1), sum), 0);
        f.add(row, sizes.int("scoreStride"));
        f.add(i, 1);
        f.add(l, sizes.stride(L, ROW));
        f.add(factor, 4);
        if (bias !== null) f.add(biasRow, sizes.stride(bias, ROW));
        f.add(left, -1);
      },
    );
  });
}

/**
 * gradRows(args, scores, slopes, rows, firstQuery, columns, L, O, dO, bias, firstKey, keys): replaces scores by the probabilities P, and
 * slopes (dP = dO Vᵀ) by scale · P ∘ (dP - Σ dO ∘ O); both are zero where hidden. The columns are `keys` keys from `firstKey`.
 */
export function emitGradRows(
  module: Module,
  step: AttentionStep,
  operands: { readonly L: Operand; readonly bias: Operand | null; readonly O: Operand; readonly dO: Operand },
): Fn {
  const { L, bias, O, dO } = operands;
  const { g, fma } = step;
  return module.fn(
    null,
    i32s(12),
    [],
    (f, args, row, slope, rows, i, columns, l, o, dout, biasRow, first, count) => {
      const math = new VectorMath(f, fma);
      const helper = new Row(f, math, args, step);
      const { sizes } = helper;
      const scale = helper.prescaled(bias) ? 1 : g.params.scale;
      const [p, s, left] = [f.local("i32"), f.local("i32"), f.local("i32", rows)];
      f.while(
        () => left,
        () => {
          const visible = helper.visible(i, first, count);
          const end = helper.prepare(row, visible, bias, biasRow);
          const delta = dot(f, math, g.params.d, [o, O], [dout, dO]);
          const shift = f.bind(f32x4.neg(loadSplat(math, L.dtype, l, 0)));
          f.set(p, row);
          f.set(s, slope);
          overVectors(f, [p, s], end, 2, (n) => {
            for (let u = 0; u < n; u++) {
              const e = f.bind(math.exp(math.madd(v128.load(p, 16 * u), math.k(scale), shift)));
              v128.store(f, p, e, 16 * u);
              const difference = f32x4.sub(v128.load(s, 16 * u), delta);
              v128.store(f, s, f32x4.mul(f32x4.mul(e, math.k(g.params.scale)), difference), 16 * u);
            }
          });
          helper.clear(row, end, columns);
          helper.clear(slope, s, columns);
          f.add(row, sizes.int("scoreStride"));
          f.add(slope, sizes.int("scoreStride"));
          f.add(i, 1);
          f.add(l, sizes.stride(L, ROW));
          f.add(o, sizes.stride(O, ROW));
          f.add(dout, sizes.stride(dO, ROW));
          if (bias !== null) f.add(biasRow, sizes.stride(bias, ROW));
          f.add(left, -1);
        },
      );
    },
  );
}

/** Σ x·y over `length` elements of two operands' last axis, in all lanes. */
function dot(
  f: Fn,
  math: VectorMath,
  length: number,
  x: readonly [Local, Operand],
  y: readonly [Local, Operand],
): Local {
  const sum = f.local("v128", math.k(0));
  const pointers = [x, y].map(([start, operand]) => ({ operand, p: f.local("i32", start) }));
  const value = (lanes: 1 | 4): Expr => {
    const [a, b] = pointers.map(({ p, operand }) =>
      lanes === 4
        ? loadLanes(math, operand.dtype, p, columnStride(operand), 0)
        : loadSplat(math, operand.dtype, p, 0),
    ) as [Expr, Expr];
    return f32x4.mul(a, b);
  };
  const run = (count: number, lanes: 1 | 4, add: () => void): void => {
    const n = f.local("i32", count);
    f.while(
      () => n,
      () => {
        add();
        for (const { p, operand } of pointers) f.add(p, lanes * byteStride(operand, COLUMN));
        f.add(n, -1);
      },
    );
  };
  if (length >= 4) run(Math.floor(length / 4), 4, () => f.set(sum, f32x4.add(sum, value(4))));
  if (length % 4 > 0) {
    const laneZero = f.constant("lane0", v128.const32([0xffffffff, 0, 0, 0]));
    run(length % 4, 1, () => f.set(sum, f32x4.add(sum, v128.and(value(1), laneZero))));
  }
  return f.bind(horizontal(f, "sum", "f32", sum));
}

/**
 * copyRows(args, panel, to, rows, factors): copies rows of a panel as wide as a head to an operand; if `scaled`, multiplies each
 * row by its factor.
 */
export function emitCopyRows(module: Module, step: AttentionStep, to: Operand, scaled: boolean): Fn {
  const { g, fma } = step;
  const { d } = g.params;
  const bytes = BYTES[to.dtype];
  const stride = columnStride(to);
  return module.fn(null, i32s(5), [], (f, args, from, target, rows, factors) => {
    const sizes = new AttentionSizes(f, args, step);
    const math = new VectorMath(f, fma);
    const [left, p, t] = [f.local("i32", rows), f.local("i32"), f.local("i32")];
    const factor = f.local("v128");
    const put = (lanes: 1 | 4): void => {
      const raw = lanes === 4 ? v128.load(p) : v128.load32_splat(p);
      const value = scaled ? f32x4.mul(raw, factor) : raw;
      if (lanes === 4) storeLanes(f, math, to.dtype, t, stride, 0, value, "f32");
      else storeOne(f, math, to.dtype, t, value, "f32");
    };
    const run = (end: Int, lanes: 1 | 4): void =>
      f.while(
        () => i32.lt_u(p, end),
        () => {
          put(lanes);
          f.add(p, 4 * lanes);
          f.add(t, lanes * stride * bytes);
        },
      );
    f.while(
      () => left,
      () => {
        if (scaled) f.set(factor, v128.load32_splat(factors));
        f.set(p, from);
        f.set(t, target);
        run(f.bind(i32.add(from, 16 * Math.floor(d / 4))), 4);
        run(f.bind(i32.add(from, 4 * d)), 1);
        f.add(from, g.widthStride);
        f.add(target, sizes.stride(to, ROW));
        if (scaled) f.add(factors, 4);
        f.add(left, -1);
      },
    );
  });
}
