/** Tensors and devices, the public API. Tensor methods check arguments and build graph nodes; only reading a value computes. */
import type { BinaryOp, DType, TypedArray, UnaryOp } from "@tiedlora/kernels";
import { computeType, decode, isFloat, ReferenceBackend, roundTo } from "@tiedlora/kernels";
import { checkDType, checkName, checkNumber } from "@tiedlora/kernels/arguments";
import { checkOptions, checkWhole, refuse } from "@tiedlora/kernels/arguments";
import * as build from "./build.ts";
import { gradients } from "./grad.ts";
import { type Node, type Range, REDUCE_KIND, type Shape } from "./graph.ts";
import { dataNode, type NestedArray, type TensorOptions } from "./host-values.ts";
import { logAddExp } from "./ops/activations.ts";
import * as indexing from "./ops/indexing.ts";
import { concat as concatNodes } from "./ops/joining.ts";
import { matrixProduct } from "./ops/products.ts";
import { execute, readValue } from "./realize.ts";
import { hostRuntime, Runtime, type RuntimeOptions } from "./runtime.ts";
import { checkShape, product, resolveAxes, resolveAxis, sameShape, show } from "./shape.ts";

/** An operand of an elementwise method: a tensor, or a number, which takes the type of the tensor it meets. */
export type TensorOrNumber = Tensor | number;
type Axes = number | readonly number[];
interface ReduceOptions {
  /** Keep reduced axes with length 1. */
  readonly keepdims?: boolean;
}
const KEEP: ReduceOptions = { keepdims: true };
/** A part of an axis: [start, stop, step?], where negative start and stop count from the end; null takes the whole axis. */
export type SliceSpec = readonly [start: number, stop: number, step?: number] | null;

/** An immutable, lazily computed n-dimensional array on a device (or on none yet, if it is made of constants alone). */
export class Tensor {
  readonly #node: Node;
  /** The device that holds it; null for constants, which adopt the device of the tensors they are combined with. */
  readonly device: Device | null;

  constructor(node: Node, device: Device | null) {
    this.#node = node;
    this.device = device;
  }

  /** The graph node behind the handle. */
  get node(): Node {
    return this.#node;
  }

  /** Lengths of the axes, the slowest first; [] for a single number. */
  get shape(): Shape {
    return this.node.shape;
  }
  /** The element type. */
  get dtype(): DType {
    return this.node.dtype;
  }
  /** The number of axes. */
  get rank(): number {
    return this.shape.length;
  }
  /** The number of elements. */
  get size(): number {
    return product(this.shape);
  }

  #make(node: Node): Tensor {
    return new Tensor(node, this.device);
  }
  #unary(op: UnaryOp, what: string = op): Tensor {
    return this.#make(build.unary(op, this.node, what));
  }
  #binary(op: BinaryOp, other: TensorOrNumber, what: string = op, swap = false): Tensor {
    const a = this.node;
    const b = operandNode(what, other, this);
    const known = typeof other === "number" || other.device === this.device;
    return new Tensor(
      swap ? build.binary(op, b, a, what) : build.binary(op, a, b, what),
      known ? this.device : deviceOf([this, other]),
    );
  }

  // --- arithmetic; shapes broadcast, types must agree (but f16 and bf16 widen to f32, and f32 to f64)
  /** this + other, elementwise. Shapes broadcast as in NumPy, here and in every elementwise method; other shapes throw. */
  add(other: TensorOrNumber): Tensor {
    return this.#binary("add", other);
  }
  /** this - other, elementwise. */
  sub(other: TensorOrNumber): Tensor {
    return this.#binary("sub", other);
  }
  /** this · other, elementwise; the matrix product is `matmul`. */
  mul(other: TensorOrNumber): Tensor {
    return this.#binary("mul", other);
  }
  /** this / other, elementwise; integer division truncates toward zero, and division by zero gives 0. */
  div(other: TensorOrNumber): Tensor {
    return this.#binary("div", other);
  }
  /** The remainder, with the sign of the dividend. */
  mod(other: TensorOrNumber): Tensor {
    return this.#binary("mod", other);
  }
  /** The larger of the two, elementwise; NaN where one is NaN. */
  maximum(other: TensorOrNumber): Tensor {
    return this.#binary("max", other, "maximum");
  }
  /** The smaller of the two, elementwise; NaN where one is NaN. */
  minimum(other: TensorOrNumber): Tensor {
    return this.#binary("min", other, "minimum");
  }
  /** x to the power y: repeated squaring for whole y up to ±64, else exp(y log |x|); NaN for finite x < 0 unless y is whole. */
  pow(exponent: TensorOrNumber): Tensor {
    const root = exponent === 0.5 ? this.sqrt() : exponent === -0.5 ? this.rsqrt() : null;
    if (root) return where(this.eq(-Infinity), exponent === 0.5 ? Infinity : 0, root);
    if (Number.isInteger(exponent) && Math.abs(exponent as number) <= 64)
      return integerPower(this, exponent as number);
    return new Tensor(build.pow(this.node, operandNode("pow", exponent, this)), deviceOf([this, exponent]));
  }

  // --- comparisons and logic: bool tensors
  /** Whether this < other, elementwise. */
  lt(other: TensorOrNumber): Tensor {
    return this.#binary("lt", other);
  }
  /** Whether this ≤ other, elementwise. */
  le(other: TensorOrNumber): Tensor {
    return this.#binary("le", other);
  }
  /** Whether this > other, elementwise. */
  gt(other: TensorOrNumber): Tensor {
    return this.#binary("lt", other, "gt", true);
  }
  /** Whether this ≥ other, elementwise. */
  ge(other: TensorOrNumber): Tensor {
    return this.#binary("le", other, "ge", true);
  }
  /** Whether this = other, elementwise; NaN equals nothing. */
  eq(other: TensorOrNumber): Tensor {
    return this.#binary("eq", other);
  }
  /** Whether this ≠ other, elementwise. */
  ne(other: TensorOrNumber): Tensor {
    return this.#binary("eq", other, "ne").not();
  }
  /** Logical and of bool tensors; bitwise and of integers. */
  and(other: TensorOrNumber): Tensor {
    return this.#binary("and", other);
  }
  /** Logical or of bool tensors; bitwise or of integers. */
  or(other: TensorOrNumber): Tensor {
    return this.#binary("or", other);
  }
  /** Exclusive or of bool tensors; bitwise exclusive or of integers. */
  xor(other: TensorOrNumber): Tensor {
    return this.#binary("xor", other);
  }
  /** The negation of a bool tensor. */
  not(): Tensor {
    return this.#unary("not");
  }
  /** Whether each element is NaN, the only value that differs from itself. */
  isNaN(): Tensor {
    return this.ne(this);
  }

  // --- elementwise functions
  /** -x. */
  neg(): Tensor {
    return this.#unary("neg");
  }
  /** e to the power x. */
  exp(): Tensor {
    return this.#unary("exp");
  }
  /** exp(x) - 1, to full precision also where x is near 0. */
  expm1(): Tensor {
    return this.#unary("expm1");
  }
  /** The natural logarithm; NaN below 0. */
  log(): Tensor {
    return this.#unary("log");
  }
  /** log(1 + x), to full precision also where x is near 0. */
  log1p(): Tensor {
    return this.#unary("log1p");
  }
  /** The square root; NaN below 0. */
  sqrt(): Tensor {
    return this.#unary("sqrt");
  }
  /** 1 / √x. */
  rsqrt(): Tensor {
    return this.#unary("rsqrt");
  }
  /** 1 / x, of floats. */
  reciprocal(): Tensor {
    return this.#unary("recip", "reciprocal");
  }
  /** The sine of x in radians. */
  sin(): Tensor {
    return this.#unary("sin");
  }
  /** The cosine of x in radians. */
  cos(): Tensor {
    return this.#unary("cos");
  }
  /** The hyperbolic tangent. */
  tanh(): Tensor {
    return this.#unary("tanh");
  }
  /** The error function 2/√π ∫₀ˣ exp(-t²) dt. */
  erf(): Tensor {
    return this.#unary("erf");
  }
  /** The largest whole number not above x, as a float; no gradient passes through it. */
  floor(): Tensor {
    return this.#unary("floor");
  }
  /** |x|, with gradient 0 at 0. */
  abs(): Tensor {
    return this.#unary("abs");
  }
  /** x². */
  square(): Tensor {
    return this.mul(this);
  }
  /** The sign of x: -1, 0 or 1; 0 for NaN. */
  sign(): Tensor {
    const type = computeType(this.dtype);
    return this.gt(0).cast(type).sub(this.lt(0).cast(type));
  }
  /** 1 / (1 + exp(-x)). */
  sigmoid(): Tensor {
    return this.#make(build.activation("sigmoid", this.node));
  }
  /** max(x, 0), with gradient 0 at 0. */
  relu(): Tensor {
    return where(this.le(0), 0, this);
  }
  /** x · sigmoid(x). */
  silu(): Tensor {
    return this.#make(build.activation("silu", this.node));
  }
  /** log(1 + exp(x)), without overflow. */
  softplus(): Tensor {
    return this.#make(build.activation("softplus", this.node));
  }
  /** log(exp(x) + exp(other)), without overflow. */
  logAddExp(other: TensorOrNumber): Tensor {
    const node = logAddExp(this.node, operandNode("logAddExp", other, this));
    return new Tensor(node, deviceOf([this, other]));
  }
  /** GELU. "none": x Φ(x) by erf. "tanh": 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))), GPT-2's approximation. */
  gelu(approximate: "none" | "tanh" = "none"): Tensor {
    checkName("gelu: approximate", approximate, ["none", "tanh"]);
    return this.#make(build.activation(approximate === "none" ? "gelu" : "geluTanh", this.node));
  }
  /** x limited to [low, high]; null means no limit on that side. */
  clamp(low: number | null, high: number | null = null): Tensor {
    for (const bound of [low, high]) if (bound !== null) checkNumber("clamp: a bound", bound);
    const raised = low === null ? this : where(this.lt(low), low, this);
    return high === null ? raised : where(raised.gt(high), high, raised);
  }
  /** The same numbers in another type. Floats become integers by truncation, saturated; bool is whether a number is not 0. */
  cast(dtype: DType): Tensor {
    return this.#make(build.cast(this.node, dtype));
  }

  // --- reductions over `axes` (default: all)
  #reduce(
    op: keyof typeof REDUCE_KIND,
    axes: Axes | undefined,
    options: ReduceOptions = {},
    what: string = REDUCE_KIND[op],
  ): Tensor {
    const { keepdims } = checkOptions(
      what,
      options,
      "{ keepdims: true }",
      what === "variance" ? ["keepdims", "correction"] : ["keepdims"],
    );
    const resolved = resolveAxes(axes, this.rank, what);
    const node = build.reduce(op, this.node, resolved);
    if (keepdims === true) return this.#make(node);
    const kept = this.shape.filter((_, i) => !resolved.includes(i));
    return this.#make(build.reshape(node, kept));
  }
  /** Σ x; an empty sum is 0. */
  sum(axes?: Axes, options?: ReduceOptions): Tensor {
    return this.#reduce("reduceSum", axes, options);
  }
  /** Π x; an empty product is 1. */
  prod(axes?: Axes, options?: ReduceOptions): Tensor {
    return this.#reduce("reduceProd", axes, options);
  }
  /** The largest element, or NaN if any element is NaN; equal maxima share the gradient. */
  max(axes?: Axes, options?: ReduceOptions): Tensor {
    return this.#reduce("reduceMax", axes, options);
  }
  /** The smallest element, or NaN if any element is NaN; equal minima share the gradient. */
  min(axes?: Axes, options?: ReduceOptions): Tensor {
    return this.#reduce("reduceMin", axes, options);
  }
  /** Σ x / n, of floats; the mean of no elements is NaN. */
  mean(axes?: Axes, options?: ReduceOptions): Tensor {
    build.needFloat("mean", this.node);
    const total = this.#reduce("reduceSum", axes, options, "mean");
    if (this.size === 0) return full(total.shape, NaN, total.dtype);
    return total.mul(total.size / this.size);
  }
  /** Mean squared distance from the mean, divided by n - correction (default 0: the biased variance that norms use). */
  variance(axes?: Axes, options: ReduceOptions & { readonly correction?: number } = {}): Tensor {
    build.needFloat("variance", this.node);
    const folded = resolveAxes(axes, this.rank, "variance");
    const { correction = 0 } = checkOptions("variance", options, "{ correction: 1 }");
    const squares = this.sub(this.mean(folded, KEEP))
      .square()
      .#reduce("reduceSum", folded, options, "variance");
    const freedom = Math.max(0, this.size / squares.size - checkNumber("variance: correction", correction));
    // the variance of no values, and of one value with a correction of 1, is 0 / 0
    return this.size === 0 ? full(squares.shape, NaN, squares.dtype) : squares.mul(1 / freedom);
  }
  /** log Σ exp(x), without overflow. */
  logSumExp(axes?: Axes, options?: ReduceOptions): Tensor {
    build.needFloat("logSumExp", this.node);
    const folded = resolveAxes(axes, this.rank, "logSumExp");
    const most = this.max(folded, KEEP).detach(); // the shift cancels out: its gradient is zero
    const max = where(most.abs().eq(Infinity), 0, most); // infinities are not subtracted: ∞ - ∞ is NaN
    const log = this.sub(max).exp().#reduce("reduceSum", folded, options, "logSumExp").log();
    return log.add(max.reshape(log.shape));
  }
  /** The index (i32) of the first largest element along `axis`, or of the first NaN. Throws if the axis is empty. */
  argmax(axis: number = -1, options?: ReduceOptions): Tensor {
    return this.#position(axis, "argmax", options);
  }
  /** The index (i32) of the first smallest element along `axis`, or of the first NaN. Throws if the axis is empty. */
  argmin(axis: number = -1, options?: ReduceOptions): Tensor {
    return this.#position(axis, "argmin", options);
  }
  #position(axis: number, what: "argmax" | "argmin", options?: ReduceOptions): Tensor {
    const at = resolveAxis(axis, this.rank, what);
    const n = this.shape[at]!;
    if (n === 0)
      throw new RangeError(`${what}: axis ${axis} of ${show(this.shape)} is empty: no index exists`);
    const equal = this.eq(what === "argmax" ? this.max(at, KEEP) : this.min(at, KEEP));
    const hit = isFloat(this.dtype) ? equal.or(this.isNaN()) : equal;
    return where(hit, iota(this.shape, at), n).#reduce("reduceMin", at, options, what);
  }
  /** exp(x) / Σ exp(x) along `axis`, without overflow. */
  softmax(axis: number = -1): Tensor {
    build.needFloat("softmax", this.node);
    const at = resolveAxis(axis, this.rank, "softmax");
    const e = this.sub(this.max(at, KEEP).detach()).exp();
    return e.div(e.sum(at, KEEP));
  }
  /** log softmax(x) along `axis`, to full precision also where softmax rounds to 0. */
  logSoftmax(axis: number = -1): Tensor {
    build.needFloat("logSoftmax", this.node);
    const at = resolveAxis(axis, this.rank, "logSoftmax");
    const shifted = this.sub(this.max(at, KEEP).detach());
    return shifted.sub(shifted.exp().sum(at, KEEP).log());
  }
  /** Running sums along `axis`: O(n²) work, but one kernel. */
  cumsum(axis: number = -1): Tensor {
    const at = resolveAxis(axis, this.rank, "cumsum");
    const pairs = [...this.shape.slice(0, at + 1), ...this.shape.slice(at)]; // [.., i, j, ..]
    const seen = iota(pairs, at + 1).le(iota(pairs, at));
    return where(seen, this.unsqueeze(at).expand(pairs), 0).sum(at + 1);
  }

  // --- movement: no elements are computed, and mostly none are copied
  /** The same elements in row-major order in another shape, in which one length may be -1, to be inferred. */
  reshape(shape: Shape): Tensor {
    return this.#make(build.reshape(this.node, shape));
  }
  /** Axis i of the result is axis order[i] of this. */
  permute(order: readonly number[]): Tensor {
    if (!Array.isArray(order)) refuse("permute", order, "order of axes", "an array that names each once");
    const axes = order.map((axis: number) => resolveAxis(axis, this.rank, "permute"));
    return this.#make(build.permute(this.node, axes));
  }
  /** Swaps two axes (default: the last two). */
  transpose(a: number = -2, b: number = -1): Tensor {
    const [x, y] = [resolveAxis(a, this.rank, "transpose"), resolveAxis(b, this.rank, "transpose")];
    return this.permute(this.shape.map((_, i) => (i === x ? y : i === y ? x : i)));
  }
  /** Broadcasts to `shape`: stretches axes of length 1, and adds axes in front. */
  expand(shape: Shape): Tensor {
    return this.#make(build.broadcastTo(this.node, checkShape("expand", shape)));
  }
  /** Removes an axis, which must have length 1. */
  squeeze(axis: number): Tensor {
    const at = resolveAxis(axis, this.rank, "squeeze");
    if (this.shape[at] !== 1)
      throw new RangeError(`squeeze: axis ${axis} of ${show(this.shape)} must have length 1`);
    return this.reshape(this.shape.filter((_, i) => i !== at));
  }
  /** Inserts an axis of length 1, which will have the index `axis`. */
  unsqueeze(axis: number): Tensor {
    const at = resolveAxis(axis, this.rank + 1, "unsqueeze");
    return this.reshape([...this.shape.slice(0, at), 1, ...this.shape.slice(at)]);
  }
  /** A part of each axis: one [start, stop, step?] or null per axis; axes without a range are kept whole. */
  slice(...ranges: readonly SliceSpec[]): Tensor {
    if (ranges.length > this.rank)
      throw new RangeError(`slice: ${ranges.length} ranges for ${show(this.shape)}; give one per axis`);
    const full = this.shape.map((d, i): Range => {
      const range = ranges[i] ?? [0, d];
      if (!Array.isArray(range)) refuse("slice", range, "range", "[start, stop, step?] per axis, or null");
      const [start, stop, step] = range;
      return [start < 0 ? start + d : start, stop < 0 ? stop + d : stop, step ?? 1];
    });
    return this.#make(build.slice(this.node, full));
  }
  /** `length` elements from `start` along `axis`. */
  narrow(axis: number, start: number, length: number): Tensor {
    const at = resolveAxis(axis, this.rank, "narrow");
    checkWhole("narrow: start", start, 0, this.shape[at]);
    checkWhole("narrow: length", length, 0, this.shape[at]! - start);
    return this.#make(build.slice(this.node, indexing.narrowRanges(this.shape, at, start, length)));
  }
  /** Adds zeros around the elements; `widths` are [before, after] per axis. */
  pad(widths: readonly (readonly [number, number])[]): Tensor {
    return this.#make(build.pad(this.node, widths));
  }
  /** The elements in reverse order along `axes`. */
  flip(axes: Axes): Tensor {
    return this.#make(build.flip(this.node, resolveAxes(axes, this.rank, "flip")));
  }
  /** Pieces along `axis`, at least one: of the given sizes, or all of one size, of which the last may be smaller. */
  split(sizes: number | readonly number[], axis: number = 0): Tensor[] {
    const length = this.shape[resolveAxis(axis, this.rank, "split")]!;
    const list = Array.isArray(sizes) ? sizes : chunks(length, sizes as number);
    if (checkShape("split", list).reduce((a, b) => a + b, 0) !== length) {
      throw new RangeError(
        `split: sizes [${list.join(", ")}] must add up to ${length}, the length of axis ${axis}`,
      );
    }
    let start = 0;
    return list.map((size) => this.narrow(axis, (start += size) - size, size));
  }
  /** Sets the elements above the given diagonal of the last two axes to zero. */
  tril(diagonal = 0): Tensor {
    return this.#make(indexing.triangle(this.node, "lower", checkWhole("tril", diagonal, -(2 ** 31))));
  }
  /** Sets the elements below the given diagonal of the last two axes to zero. */
  triu(diagonal = 0): Tensor {
    return this.#make(indexing.triangle(this.node, "upper", checkWhole("triu", diagonal, -(2 ** 31))));
  }

  // --- products and indexing
  /** [..., m, k] · [..., k, n] -> [..., m, n], batches broadcast. A vector [k] is a row on the left, a column on the right. */
  matmul(other: Tensor): Tensor {
    return tensorOf("matmul", [this, other], matrixProduct);
  }
  /** Rows of axis 0 at an index (i32) of any shape, as in an embedding lookup. An index out of range gives NaN (0 for integers). */
  take(index: Tensor): Tensor {
    return tensorOf("take", [this, index], indexing.take);
  }
  /** out[i][j] = this[i][index[i][j]] for axis 1 (torch.gather). An index out of range gives NaN (0 for integers). */
  gather(axis: number, index: Tensor): Tensor {
    const at = resolveAxis(axis, this.rank, "gather");
    return tensorOf("gather", [this, index], (x, i) => indexing.gatherAlong(x, at, i));
  }
  /** This plus `values`, each added at `index` (i32) along `axis` (torch.scatter_add). An index out of range adds nothing. */
  scatterAdd(axis: number, index: Tensor, values: Tensor): Tensor {
    const at = resolveAxis(axis, this.rank, "scatterAdd");
    const operands = [this, index, values];
    return tensorOf("scatterAdd", operands, (x, i, v) => indexing.scatterAddAlong(x, at, i, v));
  }
  /** 1 at the position given by this index (i32) in a new last axis of length `depth`, 0 elsewhere; all 0 out of range. */
  oneHot(depth: number, dtype: DType = "f32"): Tensor {
    checkWhole("oneHot: depth", depth);
    return this.#make(indexing.oneHot(this.node, depth, checkDType("oneHot", dtype)));
  }

  /** The same values, through which no gradient passes. */
  detach(): Tensor {
    return this.#make(build.marked(this.node, "stop"));
  }

  // --- reading: computes the tensor, then copies it to the host
  /** All elements, row-major. Half precision is widened to f32; bool becomes 0 and 1. */
  async data(): Promise<TypedArray> {
    realize(this);
    return decode(await readValue(this.node), this.dtype, this.size);
  }
  /** The value of a tensor with one element. */
  async item(): Promise<number> {
    if (this.size !== 1)
      throw new RangeError(`item: shape ${show(this.shape)} has ${this.size} elements; use data()`);
    return (await this.data())[0]!;
  }
  /** Nested arrays of numbers. */
  async toArray(): Promise<unknown> {
    return nest(await this.data(), this.shape);
  }

  /** Shape, type and device; not the values, which are on the device. */
  toString(): string {
    return `Tensor(${show(this.shape)} ${this.dtype}${this.device ? ` on ${this.device.name}` : ""})`;
  }
}

/** Settings of a device, whatever its backend. */
export type DeviceOptions = RuntimeOptions;

/** A backend with its compiled programs: where tensors live. Made by `cpu()`, `webgpu()` and `reference()`. */
export class Device extends Runtime {
  /**
   * A tensor of given values. Numbers become f32 unless `dtype` says otherwise; typed arrays keep their type (a
   * Uint16Array needs one: f16 or bf16 bit patterns). `shape` defaults to that of nested arrays, or one axis.
   * With `copy: false` a typed array that is already in storage format is not copied, so that large batches leave no garbage
   * to collect; do not change it while a tensor made of it, or a result not yet computed from it, is in use.
   */
  tensor(values: TypedArray | number | NestedArray, options: TensorOptions = {}): Tensor {
    return new Tensor(dataNode(values, options), this);
  }
}

/** The reference: an interpreter in float64, exact and slow. */
export function reference(options: DeviceOptions = {}): Device {
  return new Device(new ReferenceBackend(), options);
}

/** The node of an operand; a number takes the type that `like` computes in. */
function operandNode(what: string, x: TensorOrNumber, like: Tensor): Node {
  if (x instanceof Tensor) return x.node;
  if (typeof x === "number") return numberNode(what, x, computeType(like.dtype));
  return refuse(what, x, "tensor or number", "a number, or a tensor made by device.tensor(values)");
}

/** The node of a number of type `dtype`; throws if that type cannot hold the number. */
function numberNode(what: string, x: number, dtype: DType): Node {
  checkNumber(what, x);
  if (isFloat(dtype) || roundTo(dtype, x) === x) return build.scalar(x, dtype);
  throw new TypeError(
    `${what}: ${x} is no ${dtype}; use .cast("f32") on the tensor first, or give an integer`,
  );
}

/** The tensor that `make` builds from the nodes of `operands`, which must be tensors on one device. */
function tensorOf(what: string, operands: readonly Tensor[], make: (...nodes: Node[]) => Node): Tensor {
  checkTensors(what, operands);
  return new Tensor(make(...operands.map((t) => t.node)), deviceOf(operands));
}

/** Returns `tensors` if it is an array of tensors; otherwise throws an error that names `what`. */
export function checkTensors(what: string, tensors: readonly Tensor[]): readonly Tensor[] {
  if (!Array.isArray(tensors)) refuse(what, tensors, "list of tensors", "an array of them");
  for (const t of tensors)
    if (!(t instanceof Tensor)) refuse(what, t, "tensor", "one made by device.tensor(values)");
  return tensors;
}

/** x to an integer power by repeated squaring: exact signs, also for negative x. */
function integerPower(x: Tensor, exponent: number): Tensor {
  if (exponent < 0) return integerPower(x, -exponent).reciprocal();
  if (exponent <= 1)
    return exponent === 1 ? x : new Tensor(build.fill(1, x.shape, computeType(x.dtype)), x.device);
  const half = integerPower(x, Math.floor(exponent / 2)).square();
  return exponent % 2 === 0 ? half : half.mul(x);
}

/** The one device that all tensors are on; null if there are only constants. Throws if there are two devices. */
export function deviceOf(operands: readonly TensorOrNumber[]): Device | null {
  let found: Device | null = null;
  for (const x of operands) {
    if (typeof x === "number" || x.device === null || x.device === found) continue;
    if (found !== null) {
      throw new TypeError(
        `tensors are on two devices, ${found.name} and ${x.device.name}; copy one over by device.tensor(await x.data())`,
      );
    }
    found = x.device;
  }
  return found;
}

function chunks(length: number, size: number): number[] {
  checkWhole("split: size", size, 1);
  const count = Math.max(1, Math.ceil(length / size));
  return Array.from({ length: count }, (_, i) => Math.min(size, length - i * size));
}

function nest(values: TypedArray, shape: Shape): unknown {
  if (shape.length === 0) return values[0];
  const inner = product(shape.slice(1));
  return Array.from({ length: shape[0]! }, (_, i) =>
    shape.length === 1 ? values[i] : nest(values.subarray(i * inner, (i + 1) * inner), shape.slice(1)),
  );
}

/** Submits the computation of all of `tensors`, in one program per device: reading them is then only a copy. Does not wait. */
export function realize(...tensors: readonly Tensor[]): void {
  checkTensors("realize", tensors);
  for (const device of new Set(tensors.map((t) => t.device))) {
    const mine = tensors.filter((t) => t.device === device).map((t) => t.node);
    execute(device ?? hostRuntime(), mine); // constants alone can be computed on any device
  }
}

/**
 * Gradients of the scalar `loss` with respect to each tensor of `wrt`: lazy tensors, which can be differentiated again.
 * Zeros where the loss does not depend on a tensor. Skips nodes that do not depend on `wrt`. Throws unless `loss` is one float.
 */
export function grad(loss: Tensor, wrt: readonly Tensor[]): Tensor[] {
  const zeros = (t: Tensor): Tensor => new Tensor(build.fill(0, t.shape, computeType(t.dtype)), t.device);
  return gradOrNull(loss, wrt).map((g, i) => g ?? zeros(wrt[i]!));
}

/** As `grad`, with null instead of zeros. */
export function gradOrNull(loss: Tensor, wrt: readonly Tensor[]): (Tensor | null)[] {
  checkTensors("grad", [loss, ...checkTensors("grad: wrt", wrt)]);
  if (loss.size !== 1) {
    throw new RangeError(
      `grad: the loss has shape ${show(loss.shape)}; reduce it to one number, e.g. by .mean()`,
    );
  }
  if (!isFloat(loss.dtype)) throw new TypeError(`grad: the loss is ${loss.dtype}, which has no gradient`);
  const device = deviceOf([loss, ...wrt]);
  const targets = wrt.map((t) => t.node);
  const seed = build.fill(1, loss.shape, computeType(loss.dtype));
  return gradients([[loss.node, seed]], targets).map((node) => node && new Tensor(node, device));
}

/** condition ? a : b, elementwise; all broadcast. */
export function where(condition: Tensor, a: TensorOrNumber, b: TensorOrNumber): Tensor {
  checkTensors("where: the condition", [condition]);
  const like =
    [a, b].find((x): x is Tensor => x instanceof Tensor) ?? new Tensor(build.constant(0, "f32"), null);
  const [x, y] = [operandNode("where", a, like), operandNode("where", b, like)];
  return new Tensor(build.where(condition.node, x, y), deviceOf([condition, a, b]));
}

/** Joins tensors of one type along an existing axis; all other axes must be equal. −0 becomes 0 if there are at most 8 tensors. */
export function concat(tensors: readonly Tensor[], axis: number = 0): Tensor {
  if (checkTensors("concat", tensors).length === 0) throw new RangeError("concat: give at least one tensor");
  const at = resolveAxis(axis, tensors[0]!.rank, "concat");
  return tensorOf("concat", tensors, (...nodes) => concatNodes(nodes, at));
}

/** Joins tensors of one shape along a new axis. */
export function stack(tensors: readonly Tensor[], axis: number = 0): Tensor {
  if (checkTensors("stack", tensors).length === 0) throw new RangeError("stack: give at least one tensor");
  const odd = tensors.find((t) => !sameShape(t.shape, tensors[0]!.shape));
  if (odd) throw new RangeError(`stack: shapes ${show(tensors[0]!.shape)} and ${show(odd.shape)} differ`);
  const at = resolveAxis(axis, tensors[0]!.rank + 1, "stack");
  const pieces = tensors.map((t) => t.unsqueeze(at));
  return concat(pieces, at);
}

function filled(what: string, shape: Shape, value: number, dtype: DType = "f32"): Tensor {
  const number = numberNode(what, value, checkDType(what, dtype));
  return new Tensor(build.broadcastTo(number, checkShape(what, shape)), null);
}

/** `value` everywhere, on no device: it adopts the device of the tensors it is combined with. */
export function full(shape: Shape, value: number, dtype?: DType): Tensor {
  return filled("full", shape, value, dtype);
}
/** 0 everywhere. */
export const zeros = (shape: Shape, dtype?: DType): Tensor => filled("zeros", shape, 0, dtype);
/** 1 everywhere. */
export const ones = (shape: Shape, dtype?: DType): Tensor => filled("ones", shape, 1, dtype);

/** The index along `axis` of each element of `shape`, as i32. */
export function iota(shape: Shape, axis: number): Tensor {
  checkShape("iota", shape);
  return new Tensor(build.iota(shape, resolveAxis(axis, shape.length, "iota")), null);
}
/** 0 … n-1, as i32. */
export const arange = (n: number): Tensor => iota([checkWhole("arange", n)], 0);
