/** Library nodes as library calls: their operands are views of memory, their parameters follow from shapes. */
import type { DType, Epilogue, LibraryCall, Operand } from "@tiedlora/kernels";
import { type Attrs, isOp, type Node, type Shape } from "../graph.ts";
import { inverse } from "../shape.ts";
import type { Memory } from "./emit.ts";
import { descend, isMovement, isValue, type LibraryNode, pushThrough } from "./kinds.ts";
import { contiguousStrides, identityAccess, operandAt } from "./views.ts";

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

/** The call with all operands row-major, to ask a backend whether it has a kernel for such calls. */
export function plainCall(node: LibraryNode): LibraryCall {
  const plain = (shape: Shape, dtype: DType, buffer: number): Operand =>
    operandAt(shape, dtype, identityAccess(shape), buffer);
  const inputs = node.inputs.map((input, i) => plain(input.shape, input.dtype, i));
  const outputs = resultShapes(node).map((shape, i) => plain(shape, node.dtype, inputs.length + i));
  return libraryCall(node, inputs, outputs);
}

/** The operand of a result, written in the axis order in which users read it; the node's shape is that of the memory. */
export function outputOperand(node: Node, value: number): Operand {
  const own = contiguousStrides(node.shape);
  const order = isOp(node, "pick") ? node.attrs.order : undefined;
  const strides = order ? inverse(order).map((i) => own[i]!) : own;
  return { buffer: value, dtype: node.dtype, view: { offset: 0, strides } };
}

/** An operand of a library call, a strided view of `base`; `gates` are nodes that must be computed before. */
export interface CallInput {
  readonly operand: Operand;
  readonly base: Node;
  readonly gates: readonly Node[];
}

/** Looks through movement for the memory of an operand; if there is no view of it, names the node that has to be stored. */
export function callInput(input: Node, memory: Memory): CallInput | { readonly store: Node } {
  const source = descend(input, (n) => isMovement(n) && !isOp(n, "pad") && !memory.has(n));
  if (!memory.has(source)) return { store: isOp(source, "pad") || isValue(source) ? input : source };
  let at = identityAccess(input.shape);
  let node = input;
  const gates: Node[] = [];
  for (;;) {
    let base = node;
    while ((isOp(base, "reshape") || isOp(base, "after")) && !memory.has(base)) {
      if (isOp(base, "after")) gates.push(base.inputs[1]);
      base = base.inputs[0];
    }
    if (memory.has(base))
      return { operand: operandAt(node.shape, base.dtype, at, memory.idOf(base)), base, gates };
    const from = isMovement(node) ? pushThrough(node, at, input.shape) : null;
    if (!from || "axis" in from) return { store: input };
    at = from;
    node = node.inputs[0];
  }
}
