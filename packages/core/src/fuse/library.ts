/** Library nodes as library calls: parameters from shapes, and the shapes of all results. */
import type { LibraryCall, Operand } from "../kernel.ts";
import { type Attrs, isOp, type Node, type Shape } from "../node.ts";
import { contiguousStrides } from "../views.ts";

export type LibraryNode = Node<"matmul" | "attention" | "attentionGrad" | "gather" | "scatterAdd">;

/** The shapes of all results, in the order of the call's outputs. */
export function resultShapes(node: LibraryNode): readonly Shape[] {
  const shapes = node.inputs.map((input) => input.shape);
  switch (node.op) {
    case "attention":
      return [node.shape, node.shape.slice(0, -1)];
    case "attentionGrad":
      return shapes.slice(0, 3);
    default:
      return [node.shape];
  }
}

/** The call of a library node. `inputs` and `outputs` are in the order that `LibraryParams` gives. */
export function libraryCall(
  node: LibraryNode,
  inputs: readonly Operand[],
  outputs: readonly Operand[],
): LibraryCall {
  const [a, b] = node.inputs as [Node, Node];
  switch (node.op) {
    case "matmul": {
      const [m, n] = node.shape.slice(-2) as [number, number];
      const k = node.inputs.flatMap((input, i) => (i % 2 === 0 ? [input.shape.at(-1)!] : []));
      return {
        type: "library",
        name: "matmul",
        params: { batch: node.shape.slice(0, -2), m, n, k },
        inputs,
        outputs,
      };
    }
    case "attention":
    case "attentionGrad": {
      const [batch, heads, q, d] = a.shape as [number, number, number, number];
      const [, kvHeads, kv] = b.shape as [number, number, number];
      const { causal, scale } = node.attrs as Attrs["attention"];
      const bias = node.inputs.length === (node.op === "attention" ? 4 : 7);
      const params = { batch, heads, kvHeads, q, kv, d, causal, scale, bias };
      return { type: "library", name: node.op, params, inputs, outputs };
    }
    case "gather": {
      const [rows, cols] = a.shape as [number, number];
      return { type: "library", name: "gather", params: { rows, cols, count: b.shape[0]! }, inputs, outputs };
    }
    case "scatterAdd": {
      const [count, cols] = b.shape as [number, number];
      return {
        type: "library",
        name: "scatterAdd",
        params: { rows: node.shape[0]!, cols, count },
        inputs,
        outputs,
      };
    }
  }
}

/** The call with all operands row-major, to ask a backend whether it has a kernel for such calls. */
export function plainCall(node: LibraryNode): LibraryCall {
  let buffer = 0;
  const plain = (shape: Shape, dtype: Node["dtype"]): Operand => ({
    buffer: buffer++,
    dtype,
    view: { offset: 0, strides: contiguousStrides(shape) },
  });
  const inputs = node.inputs.map((input) => plain(input.shape, input.dtype));
  return libraryCall(
    node,
    inputs,
    resultShapes(node).map((shape) => plain(shape, node.dtype)),
  );
}

export function isLibrary(node: Node): node is LibraryNode {
  return (
    isOp(node, "matmul") ||
    isOp(node, "attention") ||
    isOp(node, "attentionGrad") ||
    isOp(node, "gather") ||
    isOp(node, "scatterAdd")
  );
}
