/**
 * Rewrites of a lowered graph to an equal one that takes fewer steps: x·W + (x·A)·B, a layer with its adapter, becomes one matmul
 * with two terms. Each rule is a function from a node, whose inputs have been rewritten, to its replacement.
 */
import type { Target } from "@tiedlora/kernels";
import { less, same } from "@tiedlora/kernels/family";
import { mul, permute, reshape } from "../build.ts";
import { type Inputs, isOp, Node, type Shape, topological, withInputs } from "../graph.ts";
import { inverse, product, sameShape } from "../shape.ts";
import { uniformElement } from "./emit.ts";
import { isPacked, underMovement } from "./kinds.ts";
import { isAccelerated } from "./library.ts";

/** Rewrites the graph of `roots`. */
export function rewrite(roots: readonly Node[], backend: Target): Node[] {
  const order = topological(roots);
  const users = new Map<Node, Node[]>(order.map((node) => [node, []]));
  for (const node of order) for (const input of new Set(node.inputs)) users.get(input)!.push(node);
  for (const root of roots) users.get(root)!.push(root); // the caller uses it, too
  const rewritten = new Map<Node, Node>();
  const rewriter = new Rewriter(backend);
  for (const node of order) {
    const inputs = node.inputs.map((input) => rewritten.get(input)!);
    const fresh = rewriter.apply(withInputs(node, inputs), users.get(node)!);
    rewriter.uses.set(fresh, users.get(node)!.length);
    rewritten.set(node, fresh);
  }
  return roots.map((root) => rewritten.get(root)!);
}

/** A product over a longer k is not worth computing twice. */
const SHORT = 32;

/** A₁·B₁ + A₂·B₂ + …, with `operands` A₁, B₁, A₂, …; `matmul` has the shape and type of the sum. */
interface Terms {
  readonly operands: readonly Node[];
  readonly matmul: Node;
}

class Rewriter {
  /** How many nodes use a rewritten node. */
  readonly uses = new Map<Node, number>();
  readonly #backend: Target;

  constructor(backend: Target) {
    this.#backend = backend;
  }

  /** `node`, or a replacement that takes fewer steps. `users` are the nodes that read it, before rewriting. */
  apply(node: Node, users: readonly Node[]): Node {
    if (isOp(node, "add")) return this.#sumOfProducts(node);
    if (isOp(node, "pick")) return storedForUsers(node, users);
    if (isOp(node, "permute") && isOp(node.inputs[0], "permute")) {
      const [inner] = node.inputs as [Node<"permute">];
      return permute(inner.inputs[0], node.attrs.order.map((axis) => inner.attrs.order[axis]!)); // prettier-ignore
    }
    return node;
  }

  /** A·B + C·D is one matmul with two terms; so is A·B + r + C·D, which is then followed by + r. */
  #sumOfProducts(node: Node<"add">): Node {
    for (const [x, y] of eitherFirst(node)) {
      const terms = this.#termsOf(y);
      if (!terms) continue;
      const direct = this.#oneMatmul(this.#termsOf(x), terms, node.shape);
      if (direct) return direct;
      if (!isOp(x, "add") || this.uses.get(x)! > 1) continue;
      for (const [p, rest] of eitherFirst(x)) {
        const sum = this.#oneMatmul(this.#termsOf(p), terms, node.shape);
        if (sum) return new Node("add", {}, [sum, rest], node.shape, node.dtype);
      }
    }
    return node;
  }

  /** a + b as one matmul, in `shape`; null if `a` is null, the shapes differ, or the backend has no such matmul. */
  #oneMatmul(a: Terms | null, b: Terms, shape: Shape): Node | null {
    if (!a || !sameShape(a.matmul.shape, b.matmul.shape)) return null;
    const operands = [...a.operands, ...b.operands];
    const read = operands.map(underMovement).flatMap((x) => (isPacked(x) ? x.inputs : [x]));
    if (read.length + 3 > this.#backend.caps.maxOperands) return null;
    const factors = operands as unknown as Inputs["matmul"];
    const matmul = new Node("matmul", {}, factors, a.matmul.shape, a.matmul.dtype);
    this.uses.set(matmul, 1);
    return isAccelerated(matmul, this.#backend) ? reshape(matmul, shape) : null;
  }

  /** `node` as a sum of products, if it has no other users or is cheap: perhaps reshaped, perhaps scaled. */
  #termsOf(node: Node): Terms | null {
    if (isOp(node, "reshape")) return this.#termsOf(node.inputs[0]);
    const isShared = this.uses.get(node)! > 1;
    if (isOp(node, "matmul")) {
      const isShort = node.inputs.every((input, i) => i % 2 === 1 || !less(SHORT, input.shape.at(-1)!));
      return isShared && !isShort ? null : { operands: node.inputs, matmul: node };
    }
    if (!isOp(node, "mul") || isShared) return null;
    for (const [p, factor] of eitherFirst(node)) {
      const terms = this.#termsOf(p);
      const scaled = terms && scaledTerms(terms, factor);
      if (scaled) return scaled;
    }
    return null;
  }
}

/** The operands of a node that may be swapped, in both orders. */
const eitherFirst = ({ inputs }: Node): [Node, Node][] => [inputs, inputs.toReversed()] as [Node, Node][];

/** A result of a library call is stored in the order of axes in which its users permute it, if they agree. */
function storedForUsers(node: Node<"pick">, users: readonly Node[]): Node {
  const orders = users.flatMap((user) => (isOp(user, "permute") ? [user.attrs.order] : []));
  const [order] = orders;
  const agreed = orders.every((other) => other.every((axis, i) => axis === order![i]));
  if (!order || !agreed || users.some((user) => user.op === "pick")) return node;
  const shape = order.map((axis) => node.shape[axis]!);
  const stored = new Node("pick", { ...node.attrs, order }, node.inputs, shape, node.dtype);
  return permute(stored, inverse(order));
}

/**
 * (A₁·B₁ + …) · factor with the factor inside each product, where there is less to multiply: a number scales the smaller of
 * A and B, and a row of n numbers scales B [k, n]. Null for any other factor.
 */
function scaledTerms({ operands, matmul }: Terms, factor: Node): Terms | null {
  const n = matmul.shape.at(-1)!;
  const number = uniformElement(factor);
  const row = !number && isOp(factor, "expand") ? factor.inputs[0] : null;
  if (!number && !(row && same(row.shape.at(-1) ?? 1, n) && same(product(row.shape), n))) return null;
  const by = number ? reshape(number, [1]) : reshape(row!, [n]);
  const scaled = [...operands];
  for (let i = 0; i < operands.length; i += 2) {
    const [a, b] = [operands[i]!, operands[i + 1]!];
    const which = number && less(product(a.shape), product(b.shape)) ? i : i + 1;
    const operand = operands[which]!;
    if (operand.dtype !== matmul.dtype) return null;
    scaled[which] = mul(operand, by);
  }
  return { operands: scaled, matmul };
}
