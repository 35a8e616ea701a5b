/** Kinds of nodes, as fusion sees them, and how an access to a movement node becomes an access to its input. */
import type { LibraryCall } from "@tiedlora/kernels";
import { isOp, type Node, type Op, type Shape } from "../graph.ts";
import {
  type Access,
  type Affine,
  regroup,
  scaled,
  type Split,
  throughPad,
  zero,
} from "@tiedlora/kernels/views";

type LibraryOp = LibraryCall["name"];
export type LibraryNode = Node<LibraryOp>;

const LIBRARY: readonly LibraryOp[] = ["matmul", "attention", "attentionGrad", "gather", "scatterAdd"];
const libraryOps: ReadonlySet<Op> = new Set(LIBRARY);

export function isLibrary(node: Node): node is LibraryNode {
  return libraryOps.has(node.op);
}

/** Whether a node is a leaf in memory or a result of a library call. */
export function isMemory(node: Node): boolean {
  return isOp(node, "buffer") || isOp(node, "data") || isOp(node, "pick") || isLibrary(node);
}

/** Whether a node is a quantized weight, which only the matmuls that use it read, from its words, scales and biases. */
export function isPacked(node: Node): node is Node<"dequantize"> {
  return isOp(node, "dequantize");
}

/** Whether a node is a leaf that kernels compute themselves. */
export function isValue(node: Node): boolean {
  return isOp(node, "const") || isOp(node, "scalar") || isOp(node, "iota");
}

const MOVEMENT = ["reshape", "permute", "expand", "slice", "pad", "flip", "after"] as const;
const movements: ReadonlySet<Op> = new Set(MOVEMENT);
export type Movement = (typeof MOVEMENT)[number];

/** Whether the elements of a node are those of its first input, rearranged (and, in a padding, zeros). */
export function isMovement(node: Node): node is Node<Movement> {
  return movements.has(node.op);
}

/** The pieces that a `place` node writes, without the node that holds the rest of the whole. */
export function piecesOf({ inputs, attrs }: Node<"place">): readonly Node[] {
  return attrs.onto ? inputs.slice(1) : inputs;
}

/** Starts at `node` and follows first inputs to the first node for which `skips` does not hold. */
export function descend(node: Node, skips: (node: Node) => boolean): Node {
  while (skips(node)) node = node.inputs[0]!;
  return node;
}

/** The node under all movement nodes. */
export const underMovement = (node: Node): Node => descend(node, isMovement);

/** The access to a movement node's input for the elements that `access` reaches in the node; or the Split it takes; or null. */
export function pushThrough(node: Node<Movement>, access: Access, extents: Shape): Access | Split | null {
  const input = node.inputs[0].shape;
  const { index, valid } = access;
  const mapped = (f: (affine: Affine, axis: number) => Affine): Access => ({ index: index.map(f), valid });
  if (isOp(node, "reshape")) return regroup(access, node.shape, input, extents);
  if (isOp(node, "permute")) return mapped((_, axis) => index[node.attrs.order.indexOf(axis)]!);
  if (isOp(node, "expand")) {
    const added = index.length - input.length;
    return { index: input.map((d, axis) => (d === 1 ? zero(extents.length) : index[added + axis]!)), valid };
  }
  if (isOp(node, "slice"))
    return mapped((affine, axis) => {
      const [start, , step] = node.attrs.ranges[axis]!;
      return scaled(affine, step, start, node.attrs.moving?.[axis]);
    });
  if (isOp(node, "flip")) {
    const { axes } = node.attrs;
    return mapped((affine, axis) => (axes.includes(axis) ? scaled(affine, -1, input[axis]! - 1) : affine));
  }
  return isOp(node, "pad") ? throughPad(access, node.attrs.widths, input, extents) : access;
}
