/** Library nodes as library calls: their operands are views of memory, their parameters follow from shapes. */
import type { DType, Epilogue, LibraryCall, Operand, QuantizedStorage, Target } from "@tiedlora/kernels";
import { contiguousStrides } from "@tiedlora/kernels";
import { divides, same } from "@tiedlora/kernels/family";
import { getOrCreate } from "@tiedlora/kernels/collections";
import { type Attrs, isOp, type Node, type Shape } from "../graph.ts";
import { inverse, product } from "../shape.ts";
import type { Memory } from "./emit.ts";
import { descend, isMovement, isPacked, isValue } from "./kinds.ts";
import { type LibraryNode, pushThrough, underMovement } from "./kinds.ts";
import { identityAccess, operandAt } from "@tiedlora/kernels/views";

/** The shapes of all results, in the order of the call's outputs. */
export function resultShapes(node: LibraryNode): readonly Shape[] {
  if (isOp(node, "attention")) return [node.shape, node.shape.slice(0, -1)];
  if (isOp(node, "attentionGrad")) return node.inputs.slice(0, 3).map((input) => input.shape);
  return [node.shape];
}

/** The parameters of a call. */
function paramsOf(node: LibraryNode, epilogue?: Epilogue): LibraryCall["params"] {
  const [a, b] = node.inputs;
  switch (node.op) {
    case "matmul": {
      const [m, n] = node.shape.slice(-2) as [number, number];
      const k = node.inputs.flatMap((input, i) => (i % 2 === 0 ? [input.shape.at(-1)!] : []));
      return { batch: node.shape.slice(0, -2), m, n, k, ...(epilogue ? { epilogue } : {}) };
    }
    case "attention":
    case "attentionGrad": {
      const [batch, heads, q, d] = a.shape as [number, number, number, number];
      const [, kvHeads, kv] = b.shape as [number, number, number];
      const bias = node.inputs.length === (node.op === "attention" ? 4 : 7);
      return { batch, heads, kvHeads, q, kv, d, ...(node.attrs as Attrs["attention"]), bias };
    }
    case "gather":
      return { rows: a.shape[0]!, cols: a.shape[1]!, count: b.shape[0]! };
    case "scatterAdd":
      return { rows: node.shape[0]!, cols: b.shape[1]!, count: b.shape[0]! };
  }
}

/** The call of a library node. With an epilogue there are no `outputs`: the epilogue stores the results. */
export function libraryCall(
  node: LibraryNode,
  inputs: readonly Operand[],
  outputs: readonly Operand[],
  epilogue?: Epilogue,
): LibraryCall {
  const params = paramsOf(node, epilogue);
  return { type: "library", name: node.op, params, inputs, outputs } as LibraryCall;
}

/** Whether a backend has a kernel for calls like this one: with all operands row-major, but quantized weights as they are. */
export function isAccelerated(node: LibraryNode, backend: Target): boolean {
  const plain = (shape: Shape, dtype: DType, buffer: number): Operand =>
    operandAt(shape, dtype, identityAccess(shape), buffer);
  const seen = new Map<Node, number>();
  const idOf = (leaf: Node): number => getOrCreate(seen, leaf, () => seen.size);
  const leaves: Memory = { has: (n) => !isMovement(n) && !isPacked(n), idOf, slotOf: () => 0 };
  const inputs = node.inputs.map((input) => {
    if (!isPacked(underMovement(input))) return plain(input.shape, input.dtype, idOf(input));
    const view = callInput(input, leaves);
    return "store" in view ? null : view.operand;
  });
  if (inputs.includes(null)) return false;
  const outputs = resultShapes(node).map((shape, i) => plain(shape, node.dtype, seen.size + i));
  return backend.accelerates(libraryCall(node, inputs as Operand[], outputs));
}

/** The operand of a result, written in the axis order in which users read it; the node's shape is that of the memory. */
export function outputOperand(node: Node, value: number): Operand {
  const own = contiguousStrides(node.shape);
  const order = isOp(node, "pick") ? node.attrs.order : undefined;
  const strides = order ? inverse(order).map((i) => own[i]!) : own;
  return { buffer: value, dtype: node.dtype, view: { offset: 0, strides } };
}

/** An operand of a library call, a strided view of `bases`; `gates` are nodes that must be computed before. */
export interface CallInput {
  readonly operand: Operand;
  /** One, or the words, scales and biases of a quantized weight. */
  readonly bases: readonly Node[];
  readonly gates: readonly Node[];
}

/** Looks through movement for the memory of an operand; if there is no view of it, names the node that has to be stored. */
export function callInput(input: Node, memory: Memory): CallInput | { readonly store: Node } {
  const source = descend(input, (n) => isMovement(n) && !isOp(n, "pad") && !memory.has(n));
  const packed = isPacked(source) ? packedInput(source, memory) : null;
  if (packed && "store" in packed) return packed;
  if (!packed && !memory.has(source))
    return { store: isOp(source, "pad") || isValue(source) ? input : source };
  let at = identityAccess(input.shape);
  let node = input;
  const gates: Node[] = [];
  for (;;) {
    let base = node;
    while ((isOp(base, "reshape") || isOp(base, "after")) && !memory.has(base)) {
      if (isOp(base, "after")) gates.push(base.inputs[1]);
      base = base.inputs[0];
    }
    if (packed && base === source) {
      const { operand, bases } = packed;
      const { view } = operandAt(node.shape, base.dtype, at, operand.buffer);
      const offset = view.offset + operand.view.offset;
      gates.push(...packed.gates);
      return { operand: { ...operand, view: { ...view, offset } }, bases, gates };
    }
    if (memory.has(base))
      return { operand: operandAt(node.shape, base.dtype, at, memory.idOf(base)), bases: [base], gates };
    const from = isMovement(node) ? pushThrough(node, at, input.shape) : null;
    if (!from || "axis" in from) return { store: input };
    at = from;
    node = node.inputs[0];
  }
}

/** A quantized weight whose words, scales and biases are contiguous in memory; the offset of its view counts numbers. */
function packedInput(node: Node<"dequantize">, memory: Memory): CallInput | { readonly store: Node } {
  const { bits, group } = node.attrs;
  const parts: CallInput[] = [];
  for (const input of node.inputs) {
    const part = callInput(input, memory);
    if ("store" in part) return part;
    if (!isContiguous(part.operand, input.shape)) return { store: input };
    parts.push(part);
  }
  const [words, scales, biases] = parts as [CallInput, CallInput, CallInput?];
  const start = words.operand.view.offset * (32 / bits);
  if (!divides(group, start)) return { store: node.inputs[0] };
  // scales are numbered from that of the first number in the buffer of the words
  const perGroup = ({ operand }: CallInput): Operand => {
    return { ...operand, view: { offset: operand.view.offset - start / group, strides: [1] } };
  };
  const quantized: QuantizedStorage = {
    ...node.attrs,
    groups: (start + product(node.shape)) / group,
    scales: perGroup(scales),
    ...(biases ? { biases: perGroup(biases) } : {}),
  };
  const view = { offset: start, strides: [1] };
  const [bases, gates] = [parts.flatMap((part) => part.bases), parts.flatMap((part) => part.gates)];
  return { operand: { ...words.operand, view, quantized }, bases, gates };
}

/** Whether a view shows neighboring elements, in row-major order. */
function isContiguous({ view: { strides, moving, valid } }: Operand, shape: Shape): boolean {
  const plain = contiguousStrides(shape);
  return (
    !moving && !valid && shape.every((length, axis) => length === 1 || same(strides[axis]!, plain[axis]!))
  );
}
