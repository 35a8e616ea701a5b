/** The results of library calls, with error bounds that hold for any order of summation and for online softmax. */
import {
  type LibraryCall,
  type LibraryName,
  type LibraryParams,
  type Operand,
  product,
} from "@tiedlora/core";
import { type Bounded, bounded, runBlock, type Scope } from "./loop.ts";
import { INVALID, offsetsOf, open } from "./memory.ts";

type Call<K extends LibraryName> = Extract<LibraryCall, { name: K }>;
type Runner<K extends LibraryName> = (call: Call<K>, scope: Scope) => void;

/** All elements of an operand over `shape`, contiguous. */
function read(operand: Operand, shape: readonly number[], scope: Scope): Bounded {
  const source = open(operand, scope.buffers);
  const out = bounded(product(shape));
  offsetsOf(operand.view, shape, 0, out.values.length).forEach((offset, i) => {
    if (offset === INVALID) return;
    if (offset < 0 || offset >= source.values.length)
      throw new RangeError(`an input reaches element ${offset}`);
    out.values[i] = source.values[offset]!;
    out.errors[i] = source.errors[offset]!;
  });
  return out;
}

function write(operand: Operand, shape: readonly number[], scope: Scope, from: Bounded): void {
  const target = open(operand, scope.buffers);
  offsetsOf(operand.view, shape, 0, from.values.length).forEach((offset, i) => {
    if (offset === INVALID) return;
    const wide =
      operand.dtype === "f64"
        ? "f64"
        : operand.dtype === "i32" || operand.dtype === "u32"
          ? operand.dtype
          : "f32";
    target.values[offset] = scope.arithmetic.cast(wide, operand.dtype, from.values[i]!, from.errors[i]!);
    target.errors[offset] = scope.arithmetic.error;
  });
}

/** Accumulates dot products: the sum, the sum of absolute values, and the error due to the factors' errors. */
class Dot {
  sum = 0;
  size = 0;
  error = 0;
  whole = true;
  count = 0;

  add(a: number, ea: number, b: number, eb: number): void {
    this.sum += a * b;
    this.size += (Math.abs(a) + ea) * (Math.abs(b) + eb);
    this.error += Math.abs(a) * eb + Math.abs(b) * ea + ea * eb;
    this.whole &&= Number.isInteger(a * b) && Number.isInteger(a) && Number.isInteger(b);
    this.count++;
  }

  finish(scope: Scope, dtype: "f32" | "f64"): number {
    return scope.arithmetic.sum(dtype, this.sum, this.size, this.count, this.error, this.whole);
  }
}

const wideOf = (operands: readonly Operand[]): "f32" | "f64" =>
  operands.some((o) => o.dtype === "f64") ? "f64" : "f32";

function factors(operand: Operand, shape: readonly number[], scope: Scope): Bounded {
  const { arithmetic } = scope;
  const { values, errors } = read(operand, shape, scope);
  const rounded = errors.map((e, i) => {
    arithmetic.factor(values[i]!, e);
    return arithmetic.error;
  });
  return { values, errors: rounded };
}

const matmul: Runner<"matmul"> = ({ params, inputs, outputs }, scope) => {
  const { batch, m, n, k, epilogue } = params;
  const wide = wideOf(inputs);
  const c = bounded(product(batch) * m * n);
  const dots = Array.from(c.values, () => new Dot());
  k.forEach((depth, term) => {
    const a = factors(inputs[2 * term]!, [...batch, m, depth], scope);
    const b = factors(inputs[2 * term + 1]!, [...batch, depth, n], scope);
    dots.forEach((dot, i) => {
      const [column, row, matrix] = [i % n, Math.floor(i / n), Math.floor(i / n / m)];
      for (let p = 0; p < depth; p++) {
        const [x, y] = [row * depth + p, (matrix * depth + p) * n + column];
        dot.add(a.values[x]!, a.errors[x]!, b.values[y]!, b.errors[y]!);
      }
    });
  });
  dots.forEach((dot, i) => {
    c.values[i] = dot.finish(scope, wide);
    c.errors[i] = scope.arithmetic.error;
  });
  if (!epilogue) return write(outputs[0]!, [...batch, m, n], scope, c);
  const space: Scope = { ...scope, outer: [...batch, m, n], inner: [] };
  runBlock(epilogue.body, epilogue.stores, space, 0, c.values.length, c);
};

/** The operands of an attention call, contiguous, and where the key head of row (b, h, i) starts. */
function attentionInputs(params: LibraryParams["attention"], inputs: readonly Operand[], scope: Scope) {
  const { batch, heads, kvHeads, q, kv, d } = params;
  const rest = [...inputs];
  const take = (...shape: number[]): Bounded => read(rest.shift()!, shape, scope);
  const [Q, K, V] = [take(batch, heads, q, d), take(batch, kvHeads, kv, d), take(batch, kvHeads, kv, d)];
  const bias = params.bias ? take(batch, heads, q, kv) : null;
  const keyStart = (row: number): number => {
    const [h, b] = [Math.floor(row / q) % heads, Math.floor(row / q / heads)];
    return (b * kvHeads + Math.floor(h / (heads / kvHeads))) * kv * d;
  };
  return { Q, K, V, bias, keyStart, take };
}

/** The probabilities of one query over the keys that it sees, and the logarithm of their normalizer. */
function attend(
  params: LibraryParams["attention"],
  scope: Scope,
  from: ReturnType<typeof attentionInputs>,
  row: number,
): { p: Bounded; log: number; logError: number } {
  const { q, kv, d, causal, scale } = params;
  const { arithmetic } = scope;
  const visible = causal ? Math.min(kv, (row % q) + kv - q + 1) : kv;
  const scores = bounded(visible);
  const start = from.keyStart(row);
  for (let j = 0; j < visible; j++) {
    const dot = new Dot();
    for (let x = 0; x < d; x++) {
      const [a, b] = [row * d + x, start + j * d + x];
      dot.add(from.Q.values[a]!, from.Q.errors[a]!, from.K.values[b]!, from.K.errors[b]!);
    }
    let s = dot.finish(scope, "f32");
    s = arithmetic.binary("mul", "f32", s, arithmetic.error, scale, 2 ** -24 * Math.abs(scale));
    if (from.bias) {
      const at = row * kv + j;
      s = arithmetic.binary("add", "f32", s, arithmetic.error, from.bias.values[at]!, from.bias.errors[at]!);
    }
    scores.values[j] = s;
    scores.errors[j] = arithmetic.error;
  }
  return normalise(scores, scope);
}

/**
 * Softmax of `scores`. Online softmax rescales its sums by exp(old max - new max) at each new maximum, which may take as
 * many roundings as there are keys; all factors are at most 1.
 */
function normalise(scores: Bounded, scope: Scope): { p: Bounded; log: number; logError: number } {
  const { arithmetic } = scope;
  const max = scores.values.reduce((a, b) => Math.max(a, b), -Infinity);
  const rescaling = 2 * (scores.values.length + 4) * 2 ** -24;
  const e = bounded(scores.values.length);
  let [sum, sumError] = [0, 0];
  scores.values.forEach((s, j) => {
    const shifted = arithmetic.binary("sub", "f32", s, scores.errors[j]!, max, 0);
    const y = arithmetic.unary("exp", "f32", shifted, arithmetic.error);
    e.values[j] = y;
    // attention kernels may use exponentials that are as inexact as WGSL allows
    e.errors[j] = arithmetic.error + (rescaling + 4 * 2 ** -24 * Math.abs(shifted)) * y;
    sum += y;
    sumError += e.errors[j];
  });
  const p = bounded(e.values.length);
  e.values.forEach((y, j) => {
    p.values[j] = arithmetic.binary("div", "f32", y, e.errors[j]!, sum, sumError);
    p.errors[j] = arithmetic.error;
  });
  const log = arithmetic.unary("log", "f32", sum, sumError);
  // the error of the maximum cancels: errors of the scores change log Σ exp s by no more than the largest of them
  const scoreError = scores.errors.reduce((a, b) => Math.max(a, b), 0);
  const rounding = 2 ** -24 * (8 + 4 * Math.abs(max) + 4 * Math.abs(log)); // the logarithm may be as inexact too
  return { p, log: max + log, logError: arithmetic.error + scoreError + rounding };
}

const attention: Runner<"attention"> = ({ params, inputs, outputs }, scope) => {
  const { batch, heads, q, kv, d } = params;
  const from = attentionInputs(params, inputs, scope);
  const O = bounded(batch * heads * q * d);
  const L = bounded(batch * heads * q);
  for (let row = 0; row < L.values.length; row++) {
    const { p, log, logError } = attend(params, scope, from, row);
    L.values[row] = log;
    L.errors[row] = logError;
    const start = from.keyStart(row);
    for (let x = 0; x < d; x++) {
      const dot = new Dot();
      for (let j = 0; j < p.values.length; j++) {
        const b = start + j * d + x;
        dot.add(p.values[j]!, p.errors[j]!, from.V.values[b]!, from.V.errors[b]!);
      }
      O.values[row * d + x] = dot.finish(scope, "f32");
      O.errors[row * d + x] = scope.arithmetic.error;
    }
  }
  write(outputs[0]!, [batch, heads, q, d], scope, O);
  write(outputs[1]!, [batch, heads, q], scope, L);
  void kv;
};

const attentionGrad: Runner<"attentionGrad"> = ({ params, inputs, outputs }, scope) => {
  const { batch, heads, kvHeads, q, kv, d, scale } = params;
  const { arithmetic } = scope;
  const from = attentionInputs(params, inputs, scope);
  const O = from.take(batch, heads, q, d);
  const L = from.take(batch, heads, q);
  const dO = from.take(batch, heads, q, d);
  const dots = (n: number): Dot[] => Array.from({ length: n }, () => new Dot());
  const keys = batch * kvHeads * kv * d;
  const [dQ, dK, dV] = [dots(batch * heads * q * d), dots(keys), dots(keys)];
  for (let row = 0; row < batch * heads * q; row++) {
    const { p } = attend(params, scope, from, row);
    const start = from.keyStart(row);
    const delta = dotOf(d, (x) => [dO, row * d + x, O, row * d + x], scope);
    for (let j = 0; j < p.values.length; j++) {
      const key = start + j * d;
      // p may be recomputed from L, which adds L's error
      const ep =
        p.errors[j]! + p.values[j]! * (L.errors[row]! + 4 * 2 ** -24 * (1 + Math.abs(L.values[row]!)));
      const dp = dotOf(d, (x) => [dO, row * d + x, from.V, key + x], scope);
      let ds = arithmetic.binary("sub", "f32", dp.value, dp.error, delta.value, delta.error);
      ds = arithmetic.binary("mul", "f32", ds, arithmetic.error, p.values[j]!, ep);
      ds = arithmetic.binary("mul", "f32", ds, arithmetic.error, scale, 2 ** -24 * Math.abs(scale));
      const es = arithmetic.error;
      for (let x = 0; x < d; x++) {
        const at = row * d + x;
        dQ[at]!.add(ds, es, from.K.values[key + x]!, from.K.errors[key + x]!);
        dK[key + x]!.add(ds, es, from.Q.values[at]!, from.Q.errors[at]!);
        dV[key + x]!.add(p.values[j]!, ep, dO.values[at]!, dO.errors[at]!);
      }
    }
  }
  const shapes = [[batch, heads, q, d], [batch, kvHeads, kv, d], [batch, kvHeads, kv, d]]; // prettier-ignore
  [dQ, dK, dV].forEach((sums, i) => write(outputs[i]!, shapes[i]!, scope, finishAll(sums, scope)));
};

function dotOf(
  d: number,
  factors: (x: number) => readonly [Bounded, number, Bounded, number],
  scope: Scope,
): { value: number; error: number } {
  const dot = new Dot();
  for (let x = 0; x < d; x++) {
    const [a, i, b, j] = factors(x);
    dot.add(a.values[i]!, a.errors[i]!, b.values[j]!, b.errors[j]!);
  }
  return { value: dot.finish(scope, "f32"), error: scope.arithmetic.error };
}

function finishAll(dots: readonly Dot[], scope: Scope): Bounded {
  const out = bounded(dots.length);
  dots.forEach((dot, i) => {
    out.values[i] = dot.finish(scope, "f32");
    out.errors[i] = scope.arithmetic.error;
  });
  return out;
}

const gather: Runner<"gather"> = ({ params, inputs, outputs }, scope) => {
  const { rows, cols, count } = params;
  const table = read(inputs[0]!, [rows, cols], scope);
  const index = read(inputs[1]!, [count], scope);
  const isInteger = ["i32", "u32", "bool"].includes(inputs[0]!.dtype);
  const out = bounded(count * cols);
  for (let i = 0; i < out.values.length; i++) {
    const row = index.values[Math.floor(i / cols)]!;
    const at = row * cols + (i % cols);
    const inside = row >= 0 && row < rows;
    out.values[i] = inside ? table.values[at]! : isInteger ? 0 : NaN;
    out.errors[i] = inside ? table.errors[at]! : 0;
    if (index.errors[Math.floor(i / cols)] !== 0) out.errors[i] = Infinity;
  }
  writeExactly(outputs[0]!, [count, cols], scope, out);
};

/** Copies values without arithmetic, so that a NaN stays a certain NaN. */
function writeExactly(operand: Operand, shape: readonly number[], scope: Scope, from: Bounded): void {
  write(operand, shape, scope, from);
  const target = open(operand, scope.buffers);
  offsetsOf(operand.view, shape, 0, from.values.length).forEach((offset, i) => {
    if (offset !== INVALID && Number.isNaN(from.values[i])) target.errors[offset] = 0;
  });
}

const scatterAdd: Runner<"scatterAdd"> = ({ params, inputs, outputs }, scope) => {
  const { rows, cols, count } = params;
  const index = read(inputs[0]!, [count], scope);
  const values = read(inputs[1]!, [count, cols], scope);
  const out = bounded(rows * cols);
  const dots = Array.from(out.values, () => new Dot());
  const unknown = index.errors.some((e) => e !== 0);
  index.values.forEach((row, i) => {
    if (row < 0 || row >= rows) return;
    for (let x = 0; x < cols; x++)
      dots[row * cols + x]!.add(values.values[i * cols + x]!, values.errors[i * cols + x]!, 1, 0);
  });
  const dtype = outputs[0]!.dtype;
  dots.forEach((dot, i) => {
    const integer = dtype === "i32" || dtype === "u32";
    out.values[i] = integer
      ? dtype === "i32"
        ? dot.sum | 0
        : dot.sum >>> 0
      : dot.finish(scope, wideOf(inputs));
    out.errors[i] = unknown ? Infinity : integer ? 0 : dot.count <= 1 ? dot.error : scope.arithmetic.error;
  });
  write(outputs[0]!, [rows, cols], scope, out);
};

const RUN: { readonly [K in LibraryName]: Runner<K> } = {
  matmul,
  attention,
  attentionGrad,
  gather,
  scatterAdd,
};

/** Runs one library call. */
export function runLibrary(call: LibraryCall, scope: Scope): void {
  (RUN[call.name] as Runner<LibraryName>)(call, scope);
}
