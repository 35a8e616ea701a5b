/**
 * The kernel IR: the programs that backends run. A program is a list of steps over numbered buffers; a step is
 * a loop kernel (any mixture of elementwise operations and row reductions, fused) or a library call.
 *
 * The interpreter in `reference.ts` defines the meaning of every construct here.
 */
import type { ComputeType, DType } from "./dtype.ts";
import { same } from "./family.ts";
import type { Quantization } from "./quantization.ts";

/**
 * A strided window onto a flat buffer, one stride (in elements) per axis of the iteration space it is used in.
 * The element at index i is `offset + Σ i[axis] * strides[axis]`. Strides may be 0 (broadcast) or negative (flip).
 */
export interface View {
  readonly offset: number;
  /** Terms added to the offset at run time, so that moving the window needs no new program. The window stays within the buffer. */
  readonly moving?: readonly Moving[];
  readonly strides: readonly number[];
  /** For each axis the valid range `[from, to)`, or null for all; outside the range a load yields 0 and a store is skipped. */
  readonly valid?: readonly (readonly [number, number] | null)[];
}

/** A term of an offset, in elements: `factor` times the run-time number in `slot`, which is a whole number. */
export interface Moving {
  readonly slot: number;
  readonly factor: number;
}

/** Whether two views have the same run-time terms, in the same order. */
export const sameMoving = (a: readonly Moving[] = [], b: readonly Moving[] = []): boolean =>
  a.length === b.length &&
  a.every(({ slot, factor }, i) => slot === b[i]!.slot && same(factor, b[i]!.factor));

/** A view of one of the program's buffers. */
export interface Operand {
  readonly buffer: number;
  readonly dtype: DType;
  readonly view: View;
  /** Only for the second factors of a matmul: the buffer holds the words of a quantized weight, whose numbers the view counts. */
  readonly quantized?: QuantizedStorage;
}

/** A quantized weight apart from its words. Number i of the words' buffer belongs to group floor(i / group). */
export interface QuantizedStorage extends Quantization {
  /** The number of groups that the words up to the last of the weight hold. */
  readonly groups: number;
  /** Per group, in a view of one axis: f32, f16 or bf16. */
  readonly scales: Operand;
  readonly biases?: Operand;
}

/** The further operands that reading an operand takes: scales and biases. */
export function partsOf({ quantized }: Operand): readonly Operand[] {
  if (!quantized) return [];
  return quantized.biases ? [quantized.scales, quantized.biases] : [quantized.scales];
}

/**
 * Operations on one value. Floats follow IEEE 754: NaN gives NaN, and an infinity gives the limit where one exists. Subnormal
 * operands, intermediate values and results may be flushed to zero.
 */
export type UnaryOp =
  | "neg"
  | "exp"
  /** exp(x) - 1, accurate also for x near 0. */
  | "expm1"
  | "log"
  /** log(1 + x), accurate also for x near 0. */
  | "log1p"
  | "sqrt"
  | "rsqrt"
  | "recip"
  | "sin"
  | "cos"
  | "tanh"
  | "erf"
  | "floor"
  | "abs"
  | "not";

/**
 * Operations on two values of the same type. Integer arithmetic wraps modulo 2^32 (so -2^31 / -1 = -2^31, with remainder 0);
 * integer `div` truncates; `mod` has the sign of the dividend; integer division by 0 and its remainder are 0. `shr` is logical
 * on u32 and arithmetic on i32; shift counts are taken modulo 32. `and`, `or`, `xor` work on integers and bool. With a NaN
 * operand, float arithmetic, `max` and `min` give NaN, and `lt`, `le`, `eq` give false; whether `max` and `min` of 0 and -0 give
 * 0 or -0 is unspecified.
 */
export type BinaryOp =
  | "add"
  | "sub"
  | "mul"
  | "div"
  | "mod"
  | "max"
  | "min"
  | "lt"
  | "le"
  | "eq"
  | "and"
  | "or"
  | "xor"
  | "shl"
  | "shr";

/** The operation of a reduction; a NaN among the values makes the result NaN. */
export type ReduceOp = "sum" | "prod" | "max" | "min";

/**
 * Straight-line code in SSA form: an instruction names earlier ones by index. `dtype` is the type of its result:
 * comparisons give bool; loads give the compute type of the operand's storage type.
 */
export type Instr =
  | { readonly op: "load"; readonly from: Operand; readonly dtype: ComputeType }
  | { readonly op: "const"; readonly value: number; readonly dtype: ComputeType }
  /** The run-time number in `slot`, so that e.g. a changing learning rate needs no recompilation. */
  | { readonly op: "scalar"; readonly slot: number; readonly dtype: ComputeType }
  /** The index along one axis of the iteration space (outer axes first), as i32. */
  | { readonly op: "index"; readonly axis: number; readonly dtype: "i32" }
  | { readonly op: UnaryOp; readonly a: number; readonly dtype: ComputeType }
  | { readonly op: BinaryOp; readonly a: number; readonly b: number; readonly dtype: ComputeType }
  /** a ? b : c, with `a` bool. */
  | {
      readonly op: "where";
      readonly a: number;
      readonly b: number;
      readonly c: number;
      readonly dtype: ComputeType;
    }
  /**
   * Converts to `to`. Float to integer truncates toward zero, clamps values out of range to the nearest end of the range, and
   * gives 0 for NaN. Conversion to bool is `!= 0`, so NaN gives true. Conversion between i32 and u32 keeps the bits. `to: "f16"`
   * or `"bf16"` rounds to that precision, ties to even, overflowing to an infinity; the result's type is still f32.
   */
  | { readonly op: "cast"; readonly a: number; readonly to: DType; readonly dtype: ComputeType }
  /** Folds `a` over all inner axes: one value per outer index. */
  | { readonly op: "reduce"; readonly kind: ReduceOp; readonly a: number; readonly dtype: ComputeType }
  /** In a matmul epilogue only: the finished element of the product. */
  | { readonly op: "product"; readonly dtype: ComputeType };

/** Writes the result of instruction `value` (an index into the body), converted to the operand's dtype. */
export interface Store {
  readonly to: Operand;
  readonly value: number;
}

/**
 * One fused kernel. The outer indices run in parallel, in any order; every `reduce` folds over all inner axes.
 *
 * - `inner: []` is an elementwise kernel; a body with one `reduce` is a reduction; several in sequence make up softmax,
 *   a norm or their gradients.
 * - A store whose view has `outer.length` strides happens once per outer index; one with
 *   `outer.length + inner.length` happens for every element.
 * - No axis has length 0. An elementwise kernel has `inner: []`.
 * - A kernel that loads from and stores to the same buffer uses the same view for both (in place); all loads of an
 *   element happen before its store.
 */
export interface LoopKernel {
  readonly type: "loop";
  readonly outer: readonly number[];
  readonly inner: readonly number[];
  readonly body: readonly Instr[];
  readonly stores: readonly Store[];
}

/**
 * The operations that a matmul applies to its product before storing it: an elementwise body over the axes
 * `[...batch, m, n]`, in which the instruction `product` is the finished sum over k.
 */
export interface Epilogue {
  readonly body: readonly Instr[];
  readonly stores: readonly Store[];
}

/** Parameters of the library kernels, which a backend may tune by hand. Core can lower each of them to loop kernels. */
export interface LibraryParams {
  /**
   * C[...batch, m, n] = Σ_t A_t[...batch, m, k_t] · B_t[...batch, k_t, n].
   * inputs: A_0, B_0, A_1, B_1, …, with any strides, in f32, f64, f16 or bf16; a B may be quantized. Without an epilogue, outputs is [C];
   * with one, outputs is empty, and the epilogue's stores do all writing.
   */
  matmul: {
    readonly batch: readonly number[];
    readonly m: number;
    readonly n: number;
    readonly k: readonly number[];
    readonly epilogue?: Epilogue;
  };
  /**
   * O = softmax(scale · Q Kᵀ + B, masked if causal) V with `heads / kvHeads` query heads per key head (head h uses key head
   * floor(h / (heads / kvHeads))). If `causal`, query i attends to key j only if j <= i + kv - q.
   * inputs: Q [batch, heads, q, d], K [batch, kvHeads, kv, d], V [batch, kvHeads, kv, d] and, if `bias`,
   * B [batch, heads, q, kv]; outputs: O [batch, heads, q, d], L [batch, heads, q], the log-sum-exp of each query's scores.
   */
  attention: AttentionParams;
  /** The gradients of `attention`, from dO, the gradient of O. inputs: Q, K, V, [B,] O, L, dO; outputs: dQ, dK, dV. */
  attentionGrad: AttentionParams;
  /** inputs: table [rows, cols], index [count] (i32); output [count, cols]. An index out of range yields NaN (0 for integers). */
  gather: { readonly rows: number; readonly cols: number; readonly count: number };
  /**
   * inputs: index [count] (i32), values [count, cols]; output [rows, cols]: row r is the sum of the rows `values[i]` with
   * `index[i] = r`, added in order of i, so that the result is deterministic. An index out of range adds nothing.
   */
  scatterAdd: { readonly rows: number; readonly cols: number; readonly count: number };
}

/** The sizes, scale, masking and bias of an attention call. */
export interface AttentionParams {
  readonly batch: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly q: number;
  readonly kv: number;
  readonly d: number;
  readonly causal: boolean;
  readonly scale: number;
  readonly bias: boolean;
}

/** The operations for which a backend may have its own kernels. */
export type LibraryName = keyof LibraryParams;

/** One call of a library kernel; its operands' views have one stride per axis of the shapes given above. */
export type LibraryCall = {
  [K in LibraryName]: {
    readonly type: "library";
    readonly name: K;
    readonly params: LibraryParams[K];
    readonly inputs: readonly Operand[];
    readonly outputs: readonly Operand[];
  };
}[LibraryName];

/** One step of a program. */
export type Step = LoopKernel | LibraryCall;

/**
 * A buffer of a program. `input` and `output` buffers are passed to `Executable.run` in their order here; `temp` buffers
 * belong to the executable, and several values may live in one at different times. An `output` with `aliasOf` shares the
 * memory of the input with that index (an update in place); operands refer to it by the input's index.
 */
export interface BufferSpec {
  readonly kind: "input" | "output" | "temp";
  readonly bytes: number;
  readonly aliasOf?: number;
}

/** Everything a backend needs to run one lazily built graph: fused, ordered, memory-planned. Steps run in order. */
export interface Program {
  readonly buffers: readonly BufferSpec[];
  /** The number of scalars that `run` takes. */
  readonly scalars: number;
  readonly steps: readonly Step[];
}

/** The indices of the instructions whose results `instr` reads. */
export function operandsOf(instr: Instr): readonly number[] {
  if ("c" in instr) return [instr.a, instr.b, instr.c];
  if ("b" in instr) return [instr.a, instr.b];
  return "a" in instr ? [instr.a] : [];
}

/** What a product does with its results before they are stored, if anything. */
export const epilogueOf = (call: LibraryCall): Epilogue | undefined =>
  call.name === "matmul" ? call.params.epilogue : undefined;

/** All operands of a step: those that it reads and those that it writes, scales and a matmul's epilogue included. */
export function operandsOfStep(step: Step): { reads: readonly Operand[]; writes: readonly Operand[] } {
  const loads = (body: readonly Instr[]): Operand[] => {
    const found: Operand[] = [];
    for (const instr of body) if (instr.op === "load") found.push(instr.from);
    return found;
  };
  if (step.type === "loop") return { reads: loads(step.body), writes: step.stores.map((s) => s.to) };
  const epilogue = epilogueOf(step);
  return {
    reads: [...step.inputs, ...step.inputs.flatMap(partsOf), ...loads(epilogue?.body ?? [])],
    writes: [...step.outputs, ...(epilogue?.stores.map((s) => s.to) ?? [])],
  };
}

/** The step with every operand's buffer index replaced by `to` of it. */
export function mapBuffers(step: Step, to: (value: number) => number): Step {
  return mapOperands(step, (from) => {
    const { buffer, dtype, view, quantized } = from; // written out, so that all operands have one hidden class, and are compared fast
    return quantized ? { ...from, buffer: to(buffer) } : { buffer: to(buffer), dtype, view };
  });
}

/** The step with the run-time terms of its views added to their offsets, so that no view has `moving`. */
export function atScalars(step: Step, scalars: ArrayLike<number>): Step {
  const { reads, writes } = operandsOfStep(step);
  if (![...reads, ...writes].some(({ view }) => view.moving)) return step;
  return mapOperands(step, (from) => {
    const { moving = [], ...view } = from.view;
    const offset = moving.reduce((sum, { slot, factor }) => sum + factor * scalars[slot]!, view.offset);
    return { ...from, view: { ...view, offset } };
  });
}

function mapOperands(step: Step, mapOne: (from: Operand) => Operand): Step {
  const map = (from: Operand): Operand => {
    const to = mapOne(from);
    const { quantized: q } = to;
    if (!q) return to;
    const quantized = { ...q, scales: map(q.scales), ...(q.biases ? { biases: map(q.biases) } : {}) };
    return { ...to, quantized };
  };
  const body = (list: readonly Instr[]): Instr[] =>
    list.map((i) => (i.op === "load" ? { op: i.op, from: map(i.from), dtype: i.dtype } : i));
  if (step.type === "loop") {
    const kernel: LoopKernel = {
      ...step,
      body: body(step.body),
      stores: step.stores.map((s) => ({ ...s, to: map(s.to) })),
    };
    return kernel;
  }
  const call = { ...step, inputs: step.inputs.map(map), outputs: step.outputs.map(map) } as LibraryCall;
  if (call.name !== "matmul" || !call.params.epilogue) return call;
  const { epilogue } = call.params;
  const stores = epilogue.stores.map((s) => ({ ...s, to: map(s.to) }));
  return { ...call, params: { ...call.params, epilogue: { body: body(epilogue.body), stores } } };
}
