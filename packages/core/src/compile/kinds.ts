/** Kinds of nodes, as fusion sees them; and how a read of movement becomes a read of what it shows. */
import type { LibraryCall } from "@tiedlora/kernels";
import { isOp, type Node, type Op, type Shape } from "../graph.ts";
import { type Access, type Affine, regroup, scaled, type Split, throughPad, zero } from "./views.ts";

type LibraryOp = LibraryCall["name"];
export type LibraryNode = Node<LibraryOp>;

const LIBRARY: readonly LibraryOp[] = ["matmul", "attention", "attentionGrad", "gather", "scatterAdd"];
const libraryOps: ReadonlySet<Op> = new Set(LIBRARY);

export function isLibrary(node: Node): node is LibraryNode {
  return libraryOps.has(node.op);
}

/** Leaves in memory, and what library calls write. */
export function isMemory(node: Node): boolean {
  return isOp(node, "buffer") || isOp(node, "data") || isOp(node, "pick") || isLibrary(node);
}

/** Leaves that a kernel makes up itself. */
export function isValue(node: Node): boolean {
  return isOp(node, "const") || isOp(node, "scalar") || isOp(node, "iota");
}

const MOVEMENT = ["reshape", "permute", "expand", "slice", "pad", "flip", "after"] as const;
const movements: ReadonlySet<Op> = new Set(MOVEMENT);
export type Movement = (typeof MOVEMENT)[number];

/** Nodes whose elements are their first input's, seen otherwise. */
export function isMovement(node: Node): node is Node<Movement> {
  return movements.has(node.op);
}

/** What a node writes into its memory: not the node that has the rest. */
export function piecesOf({ inputs, attrs }: Node<"place">): readonly Node[] {
  return attrs.onto ? inputs.slice(1) : inputs;
}

/** The first node that `skips` does not hold for, of `node`, its first input, the first input of that, and so on. */
export function descend(node: Node, skips: (node: Node) => boolean): Node {
  while (skips(node)) node = node.inputs[0]!;
  return node;
}

/** What is under the movement nodes. */
export const underMovement = (node: Node): Node => descend(node, isMovement);

/** The access to a movement node's input that gives what `access` to the node itself means. */
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
