/** Decides which nodes are stored in memory: one rule per reason. All other nodes are computed in the kernels that need them. */
import type { Target, UnaryOp } from "@tiedlora/kernels";
import { less } from "@tiedlora/kernels/family";
import { bytesOf, isOp, isReduction, type Node, type Op } from "../graph.ts";
import { descend, isMemory, isMovement, isPacked, isValue, piecesOf, underMovement } from "./kinds.ts";

/** Relative cost of one element; other operations cost 1. */
const COST: { readonly [K in Op]?: number } & { readonly [K in UnaryOp]: number } = {
  neg: 1, abs: 1, floor: 1, not: 1, div: 4, mod: 4, sqrt: 4, recip: 4, rsqrt: 4,
  exp: 12, expm1: 12, log: 12, log1p: 12, sin: 12, cos: 12, tanh: 16, erf: 16,
}; // prettier-ignore
/** Up to this cost, computing an element again costs less than memory traffic for another value. */
const CHEAP = 40;
/** Up to this cost, it does not matter how often an element is computed. */
const TRIVIAL = 8;
/** Kernels of more nodes than this are slow to compile. */
export const LARGEST = 600;

/** What computing one element of a node takes, given the nodes that are in memory. */
interface Estimate {
  /** The nodes that are computed for it, each once. */
  readonly work: ReadonlySet<Node>;
  /** The nodes that are read from memory for it. */
  readonly reads: ReadonlySet<Node>;
}

const NO_WORK: ReadonlySet<Node> = new Set();

const elementCost = (node: Node): number =>
  isValue(node) || isMemory(node) || isMovement(node) ? 0 : (COST[node.op] ?? 1);

export interface StorageOptions {
  /** Nodes that are results. */
  readonly roots: ReadonlySet<Node>;
  /** Null: fuse as much as possible. Otherwise: these nodes are all stored, and no kernels are joined. */
  readonly unfused: ReadonlySet<Node> | null;
  readonly backend: Target;
}

/** The nodes of `order` (inputs before users) that are in memory once they are computed. */
export function chooseStored(order: readonly Node[], { roots, unfused, backend }: StorageOptions): Set<Node> {
  const stored = new Set(order.filter((node) => isMemory(node) || roots.has(node)));
  const { uses, stretched } = countUses(order);
  const sought = searched(order);
  const estimates = new Map<Node, Estimate>();
  // the node whose values a use of `node` reads: the first that is stored or is no movement
  const sourceOf = (node: Node): Node => descend(node, (n) => isMovement(n) && !stored.has(n));
  const reading = (node: Node): Estimate => ({ work: NO_WORK, reads: new Set([node]) });
  const given = (node: Node): Estimate => (stored.has(node) ? reading(node) : estimates.get(node)!);

  for (const node of order) {
    const read = isOp(node, "place") ? piecesOf(node) : node.inputs;
    const inputs = isMemory(node) ? [] : [...new Set(read.map(sourceOf))];
    const gate = isOp(node, "after") ? sourceOf(node.inputs[1]) : null;
    if (gate && !isValue(gate)) stored.add(gate); // only a kernel can be waited for
    if (isOp(node, "after") && isOp(node.inputs[0], "cast")) stored.add(node.inputs[0]); // what checkpointIn keeps
    const parts = inputs.map(given);
    const joint = (): Set<Node> => new Set(parts.flatMap((part) => [...part.reads]));
    while (joint().size > backend.caps.maxOperands - 2) {
      // too many operands for one kernel: the input that reads most is computed apart
      const most = parts.reduce((best, part, i) => (part.reads.size > parts[best]!.reads.size ? i : best), 0);
      stored.add(inputs[most]!);
      parts[most] = reading(inputs[most]!);
    }
    const work = new Set([node]);
    for (const part of parts) for (const other of part.work) work.add(other);
    const estimate = { work, reads: joint() };
    estimates.set(node, estimate);
    if (isMovement(node) || isValue(node) || isPacked(node)) continue;
    const reads = [...estimate.reads].reduce((sum, read) => sum + bytesOf(read), 0);
    let cost = 0;
    for (const other of work) cost += elementCost(other);
    const cheap = cost <= CHEAP && !less(11 * bytesOf(node), 10 * reads);
    const reasons = [
      isReduction(node) || isOp(node, "place"),
      sought.has(node),
      unfused?.has(node),
      (uses.get(node) ?? 0) > 1 && !cheap,
      stretched.has(node) && cost > TRIVIAL,
      work.size > LARGEST / 4,
    ];
    if (reasons.includes(true)) stored.add(node);
  }
  return stored;
}

/** Nodes that are compared with their own extreme: computed in two kernels, they might round differently, and none match. */
function searched(order: readonly Node[]): Set<Node> {
  const inputsOf = (ops: readonly Op[]): Node[] =>
    order.filter(({ op }) => ops.includes(op)).flatMap(({ inputs }) => inputs.map(underMovement));
  const compared = new Set(inputsOf(["eq"]));
  return new Set(inputsOf(["reduceMax", "reduceMin"]).filter((node) => compared.has(node)));
}

/** How many nodes use each node's values, and which nodes have a use that reads an element more than once. */
function countUses(order: readonly Node[]): { uses: Map<Node, number>; stretched: Set<Node> } {
  const uses = new Map<Node, number>();
  const stretched = new Set<Node>();
  for (const node of order) {
    if (isMovement(node)) continue;
    for (const base of new Set(node.inputs.map(underMovement))) uses.set(base, (uses.get(base) ?? 0) + 1);
    for (let input of node.inputs) {
      let stretch = false;
      for (; isMovement(input); input = input.inputs[0]) stretch ||= isOp(input, "expand");
      if (stretch) stretched.add(input);
    }
  }
  return { uses, stretched };
}
