/** Tells from nodes alone that two kernels cannot be joined, before instructions are emitted for both. */
import { getOrCreate } from "@tiedlora/kernels/collections";
import { isOp, type Node } from "../graph.ts";
import { sameShape } from "../shape.ts";
import { isMovement, isPacked } from "./kinds.ts";

/** The movements between a node and what it reads: how many permutations (at most 2 are told apart), and whether some elements are left out. */
interface Way {
  readonly permutations: 0 | 1 | 2;
  readonly sliced: boolean;
  readonly spread: boolean;
}

const DIRECT: Way = { permutations: 0, sliced: false, spread: false };

/**
 * Whether `readers` read a node of `made` at other places than they compute, such as xᵀ + 1 where x is made. All of them number their elements
 * in row-major order, so that a point of a joint kernel has other elements of x than it needs. Emission would find that out too, but only
 * after splitting axes wherever their lengths happen to be multiples of others. False where movements may cancel each other.
 */
export function readsElsewhere(
  readers: readonly Node[],
  made: readonly Node[],
  isInMemory: (node: Node) => boolean,
): boolean {
  const seen = new Map<Node, Set<string>>();
  const reaches = (node: Node, way: Way): boolean => {
    const { permutations, sliced, spread } = way;
    if (made.includes(node)) return sliced || spread || permutations === 1;
    if (isInMemory(node) && !readers.includes(node)) return false;
    const ways = getOrCreate(seen, node, () => new Set());
    const key = `${permutations} ${sliced} ${spread}`;
    if (ways.has(key)) return false;
    ways.add(key);
    if (isOp(node, "place") || isPacked(node) || isOp(node, "flip")) return false;
    if (!isMovement(node)) return node.inputs.some((input) => reaches(input, way));
    const [input] = node.inputs as [Node];
    if (isOp(node, "permute") && reorders(node))
      return reaches(input, { ...way, permutations: permutations === 0 ? 1 : 2 });
    const keepsOrder = isOp(node, "permute") || isOp(node, "reshape") || isOp(node, "after");
    if (keepsOrder || sameShape(node.shape, input.shape)) return reaches(input, way);
    if (isOp(node, "slice"))
      return node.attrs.ranges.every(([, , step]) => step > 0) && reaches(input, { ...way, sliced: true });
    return !sliced && reaches(input, { ...way, spread: true }); // a slice may undo a padding or an expansion
  };
  return readers.some((reader) => reaches(reader, DIRECT));
}

/** Whether a permutation changes the order of elements in memory: axes of length 1 may go anywhere. */
function reorders({ attrs, inputs: [input] }: Node<"permute">): boolean {
  const axes = attrs.order.filter((axis) => input.shape[axis] !== 1);
  return axes.some((axis, i) => i > 0 && axis < axes[i - 1]!);
}
