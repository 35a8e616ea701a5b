/** Kinds of nodes, as fusion sees them. */
import type { LibraryCall } from "@tiedlora/kernels";
import { isOp, type Node, type Op } from "../node.ts";
import { isMovement } from "../views.ts";

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

/** What is under the movement nodes. */
export function underMovement(node: Node): Node {
  while (isMovement(node)) node = node.inputs[0]!;
  return node;
}
