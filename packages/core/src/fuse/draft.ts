/** A step while it is being put together, and what the fuser knows about nodes before it decides. */
import { BYTES } from "../dtype.ts";
import { isOp, type Node, type Op, REDUCE_KIND } from "../node.ts";
import { product } from "../shape.ts";
import { isMovement } from "../views.ts";
import type { Edge, Space } from "./space.ts";

/** A loop kernel that is growing: everything inlined in it is computed from sites of its space. */
export interface LoopDraft {
  readonly type: "loop";
  readonly space: Space;
  /** Whether the split into outer and inner axes has been settled by a reduction or by what leads to one. */
  rows: boolean;
  /** What it writes to memory. */
  readonly outputs: Node[];
  /** What it computes. */
  readonly computes: Set<Node>;
  /** Drafts that must run before. */
  readonly needs: Set<Draft>;
  /** The rules that shaped it, for `explain`. */
  readonly rules: Set<string>;
}

/** A library call: each operand has a space of its own. */
export interface LibraryDraft {
  readonly type: "library";
  readonly node: Node;
  readonly operands: { readonly node: Node; readonly space: Space; readonly edge: Edge }[];
  readonly outputs: Node[];
  readonly needs: Set<Draft>;
  readonly rules: Set<string>;
}

export type Draft = LoopDraft | LibraryDraft;

/** Whether `draft` has to wait for `other`, directly or not. */
export function waitsFor(draft: Draft, other: Draft): boolean {
  const seen = new Set<Draft>([draft]);
  const stack = [draft];
  for (let next = stack.pop(); next; next = stack.pop()) {
    for (const need of next.needs) {
      if (need === other) return true;
      if (!seen.has(need)) {
        seen.add(need);
        stack.push(need);
      }
    }
  }
  return false;
}

export const LIBRARY: ReadonlySet<Op> = new Set<Op>([
  "matmul",
  "attention",
  "attentionGrad",
  "gather",
  "scatterAdd",
]);
const MEMORY: ReadonlySet<Op> = new Set<Op>(["buffer", "data", "pick", ...LIBRARY]);
const VALUE: ReadonlySet<Op> = new Set<Op>(["const", "scalar", "iota"]);

/** Nodes whose value comes from memory in any case. */
export const isMemory = (node: Node): boolean => MEMORY.has(node.op);
/** Leaves that a kernel makes up itself. */
export const isValue = (node: Node): boolean => VALUE.has(node.op);

export function isReduction(node: Node): node is Node<keyof typeof REDUCE_KIND> {
  return node.op in REDUCE_KIND;
}

/** What is under the movement nodes. */
export function underMovement(node: Node): Node {
  while (isMovement(node)) node = node.inputs[0]!;
  return node;
}

/** Relative cost of one element; what is not listed costs 1. */
const COST: { readonly [K in Op]?: number } = {
  div: 4,
  mod: 4,
  sqrt: 4,
  recip: 4,
  rsqrt: 4,
  exp: 12,
  log: 12,
  sin: 12,
  cos: 12,
  tanh: 16,
  erf: 16,
};

/** Above this the recomputation of an element costs more than the load that it saves. */
const CHEAP = 8;

/** An estimate of what computing one element of a node from memory takes. */
export interface Estimate {
  readonly cost: number;
  /** Bytes that computing the whole node reads. */
  readonly reads: number;
  /** The number of elements that the nearest reduction behind this node folds into each of its elements; 0: none. */
  readonly folded: number;
}

export const bytesOf = (node: Node): number => product(node.shape) * BYTES[node.dtype];

/** Estimates for all nodes (inputs before users in `order`); what several need and is not cheap counts as memory. */
export function estimate(order: readonly Node[], stored: ReadonlySet<Node>): Map<Node, Estimate> {
  const uses = new Map<Node, number>();
  for (const node of order) {
    if (isMovement(node)) continue;
    for (const base of new Set(node.inputs.map(underMovement))) uses.set(base, (uses.get(base) ?? 0) + 1);
  }
  const estimates = new Map<Node, Estimate>();
  const asInput = (node: Node): Estimate => {
    const own = estimates.get(node)!;
    const inMemory = isMemory(node) || stored.has(node);
    if (inMemory || ((uses.get(node) ?? 0) > 1 && !isCheap(node, own)))
      return { ...own, cost: 0, reads: bytesOf(node) };
    return own;
  };
  for (const node of order) {
    if (isMovement(node)) continue;
    const inputs = isMemory(node) ? [] : [...new Set(node.inputs.map(underMovement))];
    let [cost, reads, folded] = [isValue(node) || isMemory(node) ? 0 : (COST[node.op] ?? 1), 0, 0];
    if (isOp(node, "cast") && node.inputs[0]!.dtype !== "bool") cost = 1;
    for (const input of inputs) {
      const e = asInput(input);
      cost += e.cost;
      reads += e.reads;
      if (product(input.shape) === product(node.shape)) folded ||= e.folded;
    }
    if (isReduction(node)) {
      folded = product(node.inputs[0]!.shape) / product(node.shape);
      cost = (cost + 1) * folded;
    }
    estimates.set(node, { cost, reads, folded });
  }
  return estimates;
}

/** Whether computing a node again wherever it is needed beats storing and loading it. */
export function isCheap(node: Node, { cost, reads }: Estimate): boolean {
  return cost <= CHEAP && reads <= 1.1 * bytesOf(node);
}

/** Whether elements may be computed several times within a kernel, for want of a better place. */
export function isTrivial({ cost }: Estimate): boolean {
  return cost <= CHEAP;
}
