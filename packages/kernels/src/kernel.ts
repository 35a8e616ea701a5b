/**
 * The kernel IR: what a backend is asked to run. A program is a list of steps over numbered buffers;
 * a step is a loop kernel (elementwise work and row reductions, any mixture, fused) or a library call.
 *
 * The meaning of every construct here is given, executably, by `reference.ts`.
 */
import type { ComputeType, DType } from "./dtype.ts";

/**
 * A strided window onto a flat buffer, one stride (in elements) per axis of the iteration space it is used in.
 * The element at index i is `offset + Σ i[axis] * strides[axis]`. Strides may be 0 (broadcast) or negative (flip).
 */
export interface View {
  readonly offset: number;
  /** What is added to the offset at run time, so that a window that moves needs no new program. It stays within the buffer. */
  readonly moving?: readonly Moving[];
  readonly strides: readonly number[];
  /** Per axis `[from, to)`, or null for all: outside of it a load yields 0 and a store is skipped. */
  readonly valid?: readonly (readonly [number, number] | null)[];
}

/** `factor` times the run-time number in `slot`, a whole number. */
export interface Moving {
  readonly slot: number;
  readonly factor: number;
}

/** Whether two views move alike. */
export const sameMoving = (a: readonly Moving[] = [], b: readonly Moving[] = []): boolean =>
  a.length === b.length && a.every(({ slot, factor }, i) => slot === b[i]!.slot && factor === b[i]!.factor);

/** A view of one of the program's buffers. */
export interface Operand {
  readonly buffer: number;
  readonly dtype: DType;
  readonly view: View;
}

/**
 * Operations on one value. Floats follow IEEE 754: a NaN gives NaN, an infinity the limit where there is one. Numbers
 * below the smallest normal one may be flushed to zero: operands, intermediate values and results.
 */
export type UnaryOp =
  | "neg"
  | "exp"
  /** exp(x) - 1, also where x is near 0. */
  | "expm1"
  | "log"
  /** log(1 + x), also where x is near 0. */
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
 * Both operands have the same type. Integer arithmetic wraps modulo 2^32 (so -2^31 / -1 = -2^31, with remainder 0);
 * integer `div` truncates; `mod` has the sign of the dividend; by 0 both give 0. `shr` is logical on u32 and arithmetic
 * on i32; shifts go by their count modulo 32. `and`, `or`, `xor` work on integers and bool. On floats a NaN operand makes
 * arithmetic, `max` and `min` NaN, and `lt`, `le`, `eq` false; which zero is larger, 0 or -0, is unspecified.
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

/** What a reduction folds with; a NaN among the values makes the result NaN. */
export type ReduceOp = "sum" | "prod" | "max" | "min";

/**
 * Straight-line code in SSA form: an instruction names earlier ones by index. `dtype` is the type of its result:
 * comparisons give bool; loads give the compute type of the operand's storage type.
 */
export type Instr =
  | { readonly op: "load"; readonly from: Operand; readonly dtype: ComputeType }
  | { readonly op: "const"; readonly value: number; readonly dtype: ComputeType }
  /** A number given at run time, so that a changing learning rate does not recompile. */
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
   * Converts to `to`. Float to integer truncates towards zero, to the nearest end of the range where it is out of it, and
   * NaN to 0; to bool is `!= 0`, so NaN is true; i32 and u32 reinterpret. `to: "f16"` or `"bf16"` rounds to that precision,
   * ties to even, to an infinity beyond the largest, and stays f32.
   */
  | { readonly op: "cast"; readonly a: number; readonly to: DType; readonly dtype: ComputeType }
  /** Folds `a` over all inner axes: one value per outer index. */
  | { readonly op: "reduce"; readonly kind: ReduceOp; readonly a: number; readonly dtype: ComputeType }
  /** In a matmul epilogue only: the finished element of the product. */
  | { readonly op: "product"; readonly dtype: ComputeType };

/** Writes `value` (an index into the body) converted to the operand's dtype. */
export interface Store {
  readonly to: Operand;
  readonly value: number;
}

/**
 * One fused kernel. The outer axes run in parallel, in any order; every `reduce` folds all the inner axes.
 *
 * - `inner: []` is an elementwise kernel; one reduce is a reduction; several that follow one another are softmax,
 *   a norm or their gradients.
 * - A store whose view has `outer.length` strides happens once per outer index; one with
 *   `outer.length + inner.length` happens for every element.
 * - No axis has length 0. An elementwise kernel has `inner: []`.
 * - A buffer that is both loaded from and stored to is accessed by the same view in both (in place); all loads of an
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
 * What a matmul does to its product before storing it: an elementwise body over the axes `[...batch, m, n]`,
 * in which the instruction `product` is the finished sum over k.
 */
export interface Epilogue {
  readonly body: readonly Instr[];
  readonly stores: readonly Store[];
}

/** Parameters of the kernels a backend may tune by hand. Core owns a fallback in loop kernels for each. */
export interface LibraryParams {
  /**
   * C[...batch, m, n] = Σ_t A_t[...batch, m, k_t] · B_t[...batch, k_t, n].
   * inputs: A_0, B_0, A_1, B_1, …, any strides, f32, f64, f16 or bf16. Without an epilogue: outputs [C].
   * With one, outputs is empty, and the epilogue's stores say what is written.
   */
  matmul: {
    readonly batch: readonly number[];
    readonly m: number;
    readonly n: number;
    readonly k: readonly number[];
    readonly epilogue?: Epilogue;
  };
  /**
   * O = softmax(scale · Q Kᵀ [masked]) V with `heads / kvHeads` query heads per key head (head h uses key head
   * floor(h / (heads / kvHeads))). Causal: query i sees key j iff j <= i + kv - q.
   * inputs: Q [batch, heads, q, d], K [batch, kvHeads, kv, d], V [batch, kvHeads, kv, d], and if `bias` an additive
   * B [batch, heads, q, kv]; outputs: O [batch, heads, q, d], L [batch, heads, q] (log of the sum of exponentials).
   */
  attention: AttentionParams;
  /** inputs: Q, K, V, [bias,] O, L, dO; outputs: dQ, dK, dV (shapes of Q, K, V). */
  attentionGrad: AttentionParams;
  /** inputs: table [rows, cols], index [count] (i32); output [count, cols]. An index out of range yields NaN (0 for integers). */
  gather: { readonly rows: number; readonly cols: number; readonly count: number };
  /**
   * inputs: index [count] (i32), values [count, cols]; output [rows, cols] = for each row the sum, in order of
   * position, of the values whose index it is. An index out of range adds nothing. Deterministic.
   */
  scatterAdd: { readonly rows: number; readonly cols: number; readonly count: number };
}

/** The sizes of an attention call, and what is masked. */
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

/** The operations that a backend may have kernels of its own for. */
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

/** What a program is a list of. */
export type Step = LoopKernel | LibraryCall;

/**
 * A buffer of a program. `input` and `output` buffers are passed to `Executable.run` in their order here; `temp` buffers
 * belong to the executable, and several values may live in one at different times. An `output` with `aliasOf` is the
 * same memory as that input (an update in place), and operands name the input's index.
 */
export interface BufferSpec {
  readonly kind: "input" | "output" | "temp";
  readonly bytes: number;
  readonly aliasOf?: number;
}

/** Everything a backend needs to run one lazily built graph: fused, ordered, memory-planned. Steps run in order. */
export interface Program {
  readonly buffers: readonly BufferSpec[];
  /** How many scalars `run` is given. */
  readonly scalars: number;
  readonly steps: readonly Step[];
}

/** The instructions that `instr` reads. */
export function operandsOf(instr: Instr): readonly number[] {
  if ("c" in instr) return [instr.a, instr.b, instr.c];
  if ("b" in instr) return [instr.a, instr.b];
  return "a" in instr ? [instr.a] : [];
}

/** All operands of a step: what it reads, what it writes. */
export function operandsOfStep(step: Step): { reads: readonly Operand[]; writes: readonly Operand[] } {
  const loads = (body: readonly Instr[]): Operand[] => body.flatMap((i) => (i.op === "load" ? [i.from] : []));
  if (step.type === "loop") return { reads: loads(step.body), writes: step.stores.map((s) => s.to) };
  const epilogue = step.name === "matmul" ? step.params.epilogue : undefined;
  return {
    reads: [...step.inputs, ...loads(epilogue?.body ?? [])],
    writes: [...step.outputs, ...(epilogue?.stores.map((s) => s.to) ?? [])],
  };
}

/** The step with every operand's buffer replaced. */
export function mapBuffers(step: Step, to: (value: number) => number): Step {
  return mapOperands(step, (from) => ({ ...from, buffer: to(from.buffer) }));
}

/** The step as it is with these run-time numbers: no view moves. */
export function atScalars(step: Step, scalars: ArrayLike<number>): Step {
  const { reads, writes } = operandsOfStep(step);
  if (![...reads, ...writes].some(({ view }) => view.moving)) return step;
  return mapOperands(step, (from) => {
    const { moving = [], ...view } = from.view;
    const offset = moving.reduce((sum, { slot, factor }) => sum + factor * scalars[slot]!, view.offset);
    return { ...from, view: { ...view, offset } };
  });
}

function mapOperands(step: Step, map: (from: Operand) => Operand): Step {
  const body = (list: readonly Instr[]): Instr[] =>
    list.map((i) => (i.op === "load" ? { ...i, from: map(i.from) } : i));
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
