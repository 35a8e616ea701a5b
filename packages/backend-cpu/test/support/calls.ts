/** Library calls to test with, of given shapes, strides and types; every operand is in a separate buffer. */
import type { AttentionParams, DType, Epilogue, LibraryCall, Operand } from "@tiedlora/kernels";
import { dense, extent, type TestBuffer } from "./run.ts";

export interface CallCase {
  readonly call: LibraryCall;
  readonly buffers: readonly TestBuffer[];
}

export class Operands {
  readonly buffers: TestBuffer[] = [];

  /** An operand over `shape`, stored with its axes in `order` (slowest first) and `gap` unused elements between rows. */
  add(
    dtype: DType,
    shape: readonly number[],
    order: readonly number[] = shape.map((_, i) => i),
    gap = 0,
  ): Operand {
    const stored = order.map((axis, i) => shape[axis]! + (i === order.length - 1 ? gap : 0));
    const strides: number[] = [];
    dense(stored).forEach((stride, i) => (strides[order[i]!] = stride));
    const { offset, length } = extent(strides, shape);
    const buffer = this.buffers.push({ dtype, length: length + offset }) - 1;
    return { buffer, dtype, view: { offset, strides } };
  }
}

export interface MatmulShape {
  readonly batch?: readonly number[];
  readonly m: number;
  readonly n: number;
  readonly k: readonly number[];
  /** Per term: whether A and B are stored transposed. */
  readonly transposed?: readonly (readonly [boolean, boolean])[];
  readonly dtype?: DType;
  readonly transposedC?: boolean;
  readonly gap?: number;
  /** Whether an epilogue adds a vector along n and takes the larger of the sum and 0. */
  readonly epilogue?: boolean;
}

const swapLast = (rank: number): number[] => {
  const order = Array.from({ length: rank }, (_, i) => i);
  return [...order.slice(0, -2), rank - 1, rank - 2];
};

export function matmulCase(shape: MatmulShape): CallCase {
  const { batch = [], m, n, k, transposed = [], dtype = "f32", transposedC = false, gap = 0 } = shape;
  const operands = new Operands();
  const rank = batch.length + 2;
  const order = (swap: boolean): number[] | undefined => (swap ? swapLast(rank) : undefined);
  const inputs = k.flatMap((depth, t) => [
    operands.add(t === 0 ? "f32" : dtype, [...batch, m, depth], order(transposed[t]?.[0] ?? false), gap),
    operands.add(dtype, [...batch, depth, n], order(transposed[t]?.[1] ?? false), gap),
  ]);
  const c = operands.add("f32", [...batch, m, n], order(transposedC), gap);
  if (shape.epilogue !== true) {
    const call: LibraryCall = {
      type: "library",
      name: "matmul",
      params: { batch, m, n, k },
      inputs,
      outputs: [c],
    };
    return { call, buffers: operands.buffers };
  }
  const bias = operands.add("f32", [n]);
  const along = { ...bias, view: { offset: 0, strides: [...batch.map(() => 0), 0, 1] } };
  const epilogue: Epilogue = {
    body: [
      { op: "product", dtype: "f32" },
      { op: "load", from: along, dtype: "f32" },
      { op: "add", a: 0, b: 1, dtype: "f32" },
      { op: "const", value: 0, dtype: "f32" },
      { op: "max", a: 2, b: 3, dtype: "f32" },
    ],
    stores: [{ to: c, value: 4 }],
  };
  const params = { batch, m, n, k, epilogue };
  return {
    call: { type: "library", name: "matmul", params, inputs, outputs: [] },
    buffers: operands.buffers,
  };
}

/** Attention whose operands store the heads of one position together, as models do. */
export function attentionCase(params: AttentionParams): CallCase {
  const { batch, heads, kvHeads, q, kv, d } = params;
  const operands = new Operands();
  const inside = [0, 2, 1, 3];
  const inputs = [
    operands.add("f32", [batch, heads, q, d], inside),
    operands.add("f32", [batch, kvHeads, kv, d], inside),
    operands.add("f32", [batch, kvHeads, kv, d], inside),
  ];
  if (params.bias) inputs.push(operands.add("f32", [batch, heads, q, kv]));
  const outputs = [operands.add("f32", [batch, heads, q, d], inside), operands.add("f32", [batch, heads, q])];
  return { call: { type: "library", name: "attention", params, inputs, outputs }, buffers: operands.buffers };
}

/** The gradient call that follows an attention: same inputs, then O and L, which `attention` fills, then dO. */
export function attentionGradCase({ call, buffers }: CallCase): CallCase {
  if (call.name !== "attention") throw new Error("expected an attention call");
  const { batch, heads, kvHeads, q, kv, d } = call.params;
  const operands = new Operands();
  operands.buffers.push(...buffers);
  const inside = [0, 2, 1, 3];
  const dO = operands.add("f32", [batch, heads, q, d], inside);
  const outputs = [
    operands.add("f32", [batch, heads, q, d], inside),
    operands.add("f32", [batch, kvHeads, kv, d]),
    operands.add("f32", [batch, kvHeads, kv, d], [0, 1, 3, 2]),
  ];
  const inputs = [...call.inputs, ...call.outputs, dO];
  return {
    call: { type: "library", name: "attentionGrad", params: call.params, inputs, outputs },
    buffers: operands.buffers,
  };
}
