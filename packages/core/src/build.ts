/** Builders of single nodes: they check arguments, broadcast operands, infer shape and type, and omit nodes that do nothing. */
import type { BinaryOp, DType, TypedArray, UnaryOp } from "@tiedlora/kernels";
import { allocateArray, BYTES, computeType, isFloat } from "@tiedlora/kernels";
import { checkDType } from "@tiedlora/kernels/arguments";
import { list } from "@tiedlora/kernels/collections";
import { same } from "@tiedlora/kernels/family";
import type { ActivationOp, Attrs, Custom, Inputs, Op, Range, Replay, Shape } from "./graph.ts";
import { isOp, Node, NONE, REDUCE_KIND } from "./graph.ts";
import { broadcastShapes, product, resolveShape, sameShape, show } from "./shape.ts";
import type { Storage } from "./storage.ts";

// --- leaves

/** Device memory as it is now. */
export function buffer(storage: Storage, shape: Shape, dtype: DType): Node<"buffer"> {
  return new Node("buffer", { storage, version: storage.version }, [], shape, dtype);
}

/** Whether `values` is an array of the storage format of `dtype`. */
export function isStorage(values: ArrayLike<number>, dtype: DType): values is TypedArray {
  return values.constructor === allocateArray(dtype, 0).constructor;
}

/** Host memory: `values` in the storage format of `dtype`, row-major. */
export function data(values: TypedArray, shape: Shape, dtype: DType): Node<"data"> {
  if (values.byteLength !== product(shape) * BYTES[dtype]) {
    throw new RangeError(
      `tensor: ${values.length} values were given for shape ${show(shape)} of ${dtype}, which takes ${product(shape)}`,
    );
  }
  return new Node("data", { values }, [], shape, dtype);
}

/** A number that is part of the program. */
export function constant(value: number, dtype: DType): Node<"const"> {
  return new Node("const", { value }, [], [], dtype);
}

const BAKED: ReadonlySet<number> = new Set([0, 1, -1, 2, 0.5]);

/** A number given at run time, unless it is one of 0, ±1, 2, ½, which are part of the program. */
export function scalar(value: number, dtype: DType): Node {
  return BAKED.has(value) || dtype === "bool" ? constant(value, dtype) : runtimeScalar(value, dtype);
}

/** A number given at run time, so that a new value needs no new program. */
export function runtimeScalar(value: number, dtype: DType): Node<"scalar"> {
  return new Node("scalar", { value }, [], [], dtype);
}

/** The index along `axis`, as i32. */
export function iota(shape: Shape, axis: number): Node<"iota"> {
  return new Node("iota", { axis }, [], shape, "i32");
}

/** Uniform u32 words; see `random.ts`. */
export function randomBits(key0: Node, key1: Node, shape: Shape): Node<"randomBits"> {
  return new Node("randomBits", NONE, list(key0, key1), shape, "u32");
}

/** `value` everywhere in `shape`. */
export function fill(value: number, shape: Shape, dtype: DType): Node {
  return broadcastTo(constant(value, dtype), shape);
}

// --- elementwise

/** The constant that every element of a node equals, or null if it is not a constant. */
export function constantValue(node: Node): number | null {
  while (isOp(node, "expand") || isOp(node, "reshape")) node = node.inputs[0]!;
  return isOp(node, "const") ? node.attrs.value : null;
}

/** Widens half precision to f32, since arithmetic is never done in it. */
function widen(x: Node): Node {
  return cast(x, computeType(x.dtype));
}

/** Throws if the node is not of a float type. */
export function needFloat(what: string, { dtype }: Node): void {
  if (!isFloat(dtype))
    throw new TypeError(
      `${what}: the tensor is ${dtype}, but a float type is needed; use .cast("f32") first`,
    );
}

export function unary(op: UnaryOp, x: Node, what: string = op): Node {
  const { dtype } = x;
  const wanted = op === "not" ? "bool" : op === "neg" || op === "abs" ? "a number type" : "a float type";
  const fits =
    wanted === "bool" ? dtype === "bool" : wanted === "a float type" ? isFloat(dtype) : dtype !== "bool";
  if (!fits)
    throw new TypeError(`${what}: the tensor is ${dtype}, but ${wanted} is needed; use .cast(…) first`);
  const wide = widen(x);
  return new Node(op, NONE, list(wide), wide.shape, wide.dtype);
}

/** The type in which operands meet: f16 and bf16 widen to f32, f32 meets f64 as f64; nothing else converts by itself. */
function commonType(op: string, a: DType, b: DType): DType {
  const x = computeType(a);
  const y = computeType(b);
  if (x === y) return x;
  if (isFloat(x) && isFloat(y)) return "f64";
  throw new TypeError(`${op}: operands are ${a} and ${b}; convert one with .cast("${a}") or .cast("${b}")`);
}

/** The kinds of binary operators that are not arithmetic. */
const KIND: { readonly [K in Op]?: "comparison" | "bitwise" | "shift" } = {
  lt: "comparison", le: "comparison", eq: "comparison",
  and: "bitwise", or: "bitwise", xor: "bitwise", shl: "shift", shr: "shift",
}; // prettier-ignore

function checkOperands(kind: (typeof KIND)[Op], op: BinaryOp, dtype: DType, what: string): void {
  const takes =
    kind === "bitwise"
      ? !isFloat(dtype)
      : kind === "shift"
        ? dtype === "i32" || dtype === "u32"
        : dtype !== "bool" || op === "eq";
  if (!takes) throw new TypeError(`${what} is not defined on ${dtype} tensors; convert with .cast(…) first`);
}

/** The operators that most of a graph consists of. */
const isArithmetic = (op: BinaryOp): boolean => op === "mul" || op === "add" || op === "sub" || op === "div";

/** The operand that a + 0, a · 1 and the like are equal to; null if something has to be computed. */
function shortcut(op: BinaryOp, a: Node, b: Node): Node | null {
  const neutral = op === "add" || op === "sub" ? 0 : 1;
  const x = op === "add" || op === "mul" ? constantValue(a) : null;
  const y = constantValue(b);
  if (x !== null && same(x, neutral)) return b;
  return y !== null && same(y, neutral) ? a : null;
}

export function binary(op: BinaryOp, a: Node, b: Node, what: string = op): Node {
  const type = commonType(what, a.dtype, b.dtype);
  const kind = isArithmetic(op) ? undefined : KIND[op];
  checkOperands(kind, op, type, what);
  const isLike = sameShape(a.shape, b.shape);
  const shape = isLike ? a.shape : broadcastShapes(a.shape, b.shape, what);
  const x = cast(a, type);
  const y = cast(b, type);
  const short = isArithmetic(op) ? shortcut(op, x, y) : null;
  if (short) return stretch(short, shape);
  const operands = isLike ? list(x, y) : list(stretch(x, shape), stretch(y, shape));
  return new Node(op, NONE, operands, shape, kind === "comparison" ? "bool" : type);
}

export const add = (a: Node, b: Node): Node => binary("add", a, b);
export const sub = (a: Node, b: Node): Node => binary("sub", a, b);
export const mul = (a: Node, b: Node): Node => binary("mul", a, b);
export const div = (a: Node, b: Node): Node => binary("div", a, b);
export const neg = (x: Node): Node => unary("neg", x);
export const not = (x: Node): Node => unary("not", x);
export const square = (x: Node): Node => mul(x, x);
/** x · value, with the value given at run time. */
export const scale = (x: Node, value: number): Node => mul(x, scalar(value, computeType(x.dtype)));

/** condition ? a : b, elementwise, all broadcast together. */
export function where(condition: Node, a: Node, b: Node): Node {
  if (condition.dtype !== "bool") {
    throw new TypeError(
      `where: the condition is ${condition.dtype}, but bool is needed; compare it, or use .cast("bool")`,
    );
  }
  const type = commonType("where", a.dtype, b.dtype);
  const shape = broadcastShapes(condition.shape, broadcastShapes(a.shape, b.shape, "where"), "where");
  const fit = (x: Node): Node => stretch(cast(x, type), shape);
  return new Node("where", NONE, list(stretch(condition, shape), fit(a), fit(b)), shape, type);
}

/** An activation of floats, or its derivative of the given order. */
export function activation(op: ActivationOp, x: Node, order = 0): Node {
  needFloat(op === "geluTanh" ? "gelu" : op, x);
  const wide = widen(x);
  return new Node(op, { order }, list(wide), wide.shape, wide.dtype);
}

/** a to the power b, of floats. */
export function pow(a: Node, b: Node): Node {
  const type = commonType("pow", a.dtype, b.dtype);
  needFloat("pow", a);
  const shape = broadcastShapes(a.shape, b.shape, "pow");
  const fit = (x: Node): Node => stretch(cast(x, type), shape);
  return new Node("pow", NONE, list(fit(a), fit(b)), shape, type);
}

/** Where 0 <= index < length. */
export function within(index: Node, length: number): Node {
  const above = binary("le", constant(0, "i32"), index);
  return binary("and", above, binary("lt", index, constant(length, "i32")));
}

export function cast(x: Node, to: DType): Node {
  return x.dtype === to ? x : new Node("cast", { to: checkDType("cast", to) }, list(x), x.shape, to);
}

// --- reductions

/** Folds `axes` (ascending, distinct), which are kept with length 1. */
export function reduce(op: keyof typeof REDUCE_KIND, x: Node, axes: readonly number[]): Node {
  const wide = widen(x);
  if (wide.dtype === "bool")
    throw new TypeError(`${REDUCE_KIND[op]}: the tensor is bool; use .cast("i32") to count`);
  const shape = wide.shape.map((d, i) => (axes.includes(i) ? 1 : d));
  if (sameShape(shape, wide.shape)) return wide;
  return new Node(op, { axes }, list(wide), shape, wide.dtype);
}

export const sum = (x: Node, axes: readonly number[]): Node => reduce("reduceSum", x, axes);

/** Sums a gradient of a broadcast result back to the operand's shape. */
export function unbroadcast(g: Node, shape: Shape): Node {
  if (sameShape(g.shape, shape)) return g;
  const extra = g.shape.length - shape.length;
  const axes: number[] = [];
  for (let i = 0; i < g.shape.length; i++)
    if (g.shape[i] !== 1 && (i < extra || shape[i - extra] === 1)) axes.push(i);
  return reshape(sum(g, axes), shape);
}

// --- movement

export function reshape(x: Node, shape: Shape): Node {
  const resolved = resolveShape(shape, x.shape);
  if (sameShape(resolved, x.shape)) return x;
  if (isOp(x, "reshape") && x.gradient === null) return reshape(x.inputs[0], resolved);
  return new Node("reshape", NONE, list(x), resolved, x.dtype);
}

export function permute(x: Node, order: readonly number[]): Node {
  if (order.length !== x.shape.length || x.shape.some((_, axis) => !order.includes(axis))) {
    throw new RangeError(`permute: [${order.join(", ")}] does not name each axis of ${show(x.shape)} once`);
  }
  if (order.every((axis, i) => axis === i)) return x;
  const shape = order.map((axis) => x.shape[axis]!);
  return new Node("permute", { order }, list(x), shape, x.dtype);
}

/** Swaps the last two axes. */
export function swapLast(x: Node): Node {
  const last = x.shape.length - 1;
  const order = x.shape.map((_, i) => (i === last ? i - 1 : i === last - 1 ? last : i));
  return permute(x, order);
}

/** `x` stretched to `shape` by the broadcasting rule. */
export function broadcastTo(x: Node, shape: Shape): Node {
  if (sameShape(x.shape, shape)) return x;
  if (!sameShape(broadcastShapes(x.shape, shape, "expand"), shape)) {
    throw new RangeError(
      `expand: ${show(x.shape)} does not stretch to ${show(shape)}; only axes of length 1 do`,
    );
  }
  return stretch(x, shape);
}

/** Does the same, without checks, for an `x` that is known to stretch. */
function stretch(x: Node, shape: Shape): Node {
  if (sameShape(x.shape, shape)) return x;
  if (product(x.shape) === product(shape)) return reshape(x, shape);
  return new Node("expand", NONE, list(x), shape, x.dtype);
}

export function slice(x: Node, ranges: readonly Range[]): Node {
  ranges.forEach(([start, stop, step], axis) => {
    const inOrder = 0 <= start && start <= stop && stop <= (x.shape[axis] ?? -1) && step >= 1;
    if (!inOrder || ![start, stop, step].every(Number.isInteger)) {
      throw new RangeError(
        `slice: [${start}, ${stop}, ${step}] is not a range of axis ${axis} of ${show(x.shape)}`,
      );
    }
  });
  if (ranges.length !== x.shape.length)
    throw new RangeError(`slice: ${ranges.length} ranges for shape ${show(x.shape)}; give one per axis`);
  if (ranges.every(([start, stop, step], i) => start === 0 && stop === x.shape[i] && step === 1)) return x;
  const shape = ranges.map(([start, stop, step]) => Math.ceil((stop - start) / step));
  return new Node("slice", { ranges }, list(x), shape, x.dtype);
}

/** x with `values` in place of its elements from `start` on along `axis`, a number that is always given at run time. */
export function place(x: Node, values: Node, axis: number, start: number): Node {
  return new Node("place", { axis, starts: [start], onto: true }, list(x, values), x.shape, x.dtype);
}

export function pad(x: Node, widths: readonly (readonly [number, number])[]): Node {
  const isPair = (pair: unknown): boolean =>
    Array.isArray(pair) && pair.length === 2 && pair.every((n) => Number.isInteger(n) && n >= 0);
  if (!Array.isArray(widths) || widths.length !== x.shape.length || !widths.every(isPair)) {
    throw new RangeError(
      `pad: widths ${JSON.stringify(widths)} for ${show(x.shape)}; give [before, after] from 0 for each axis`,
    );
  }
  if (widths.every(([before, after]) => before + after === 0)) return x;
  const shape = x.shape.map((d, i) => widths[i]![0] + d + widths[i]![1]);
  return new Node("pad", { widths }, list(x), shape, x.dtype);
}

export function flip(x: Node, axes: readonly number[]): Node {
  return axes.length === 0 ? x : new Node("flip", { axes }, list(x), x.shape, x.dtype);
}

// --- library

/** A [...batch, m, k] · B [...batch, k, n]; batches broadcast. */
export function matmul(a: Node, b: Node): Node {
  const [k, rows] = [a.shape.at(-1), b.shape.at(-2)];
  if (a.shape.length < 2 || b.shape.length < 2 || k !== rows) {
    throw new RangeError(
      `matmul: ${show(a.shape)} · ${show(b.shape)}: the last axis of the first (${k}) must equal the second-to-last of the second (${rows})`,
    );
  }
  for (const x of [a, b]) needFloat("matmul", x);
  const [m, n] = [a.shape.at(-2)!, b.shape.at(-1)!];
  const dtype = a.dtype === "f64" || b.dtype === "f64" ? "f64" : "f32";
  if (a.shape.length === 2 && b.shape.length === 2)
    return new Node("matmul", NONE, list(a, b), [m, n], dtype);
  const batch = broadcastShapes(a.shape.slice(0, -2), b.shape.slice(0, -2), "matmul");
  const [x, y] = [broadcastTo(a, [...batch, m, k!]), broadcastTo(b, [...batch, k!, n])];
  return new Node("matmul", NONE, list(x, y), [...batch, m, n], dtype);
}

/** Rows of `table` [rows, cols] at `index` [count]. */
export function gather(table: Node, index: Node): Node {
  const shape = [index.shape[0]!, table.shape[1]!];
  return new Node("gather", NONE, list(table, index), shape, computeType(table.dtype));
}

/** For each of `rows` rows, the sum of the rows of `values` [count, cols] whose `index` [count] is that row. */
export function scatterAdd(index: Node, values: Node, rows: number): Node {
  const wide = widen(values);
  return new Node("scatterAdd", NONE, list(index, wide), [rows, wide.shape[1]!], wide.dtype);
}

/** Result `index` of a node with several. */
export function pick(node: Node, index: number, shape: Shape): Node {
  return new Node("pick", { index }, list(node), shape, node.dtype);
}

/** softmax(scale · Q Kᵀ + bias) V, and the log of its normalizers, as [O, L]. Q [b, h, q, d], K and V [b, kvHeads, kv, d]. */
export function attention(inputs: Inputs["attention"], attrs: Attrs["attention"]): [O: Node, L: Node] {
  const [q, k, v, ...bias] = inputs;
  const wide = [widen(q), widen(k), widen(v), ...bias.map(widen)] as const;
  return attentionResults(new Node("attention", attrs, wide, q.shape, computeType(q.dtype)));
}

/** [O, L] of an attention node. */
export function attentionResults(node: Node): [O: Node, L: Node] {
  return [pick(node, 0, node.shape), pick(node, 1, node.shape.slice(0, -1))];
}

/** [dQ, dK, dV] of an attention, given its inputs, results and dO. */
export function attentionGrad(
  inputs: Inputs["attentionGrad"],
  attrs: Attrs["attentionGrad"],
): [Node, Node, Node] {
  const [q, k, v] = inputs;
  const node = new Node("attentionGrad", attrs, inputs, q.shape, q.dtype);
  return [pick(node, 0, q.shape), pick(node, 1, k.shape), pick(node, 2, v.shape)];
}

/** `x`, but computed only after `gate`. */
export function after(x: Node, gate: Node): Node {
  return new Node("after", NONE, list(x, gate), x.shape, x.dtype);
}

/** `x`, through which no gradient passes ("stop"), or whose gradient comes from computing it again, or from a rule of its own. */
export function marked(x: Node, gradient: "stop" | Replay | Custom): Node {
  const node = new Node("reshape", NONE, list(x), x.shape, x.dtype);
  node.gradient = gradient;
  return node;
}
