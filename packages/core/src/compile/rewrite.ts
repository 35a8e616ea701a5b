/** Rewrites of a lowered graph to an equal one that takes fewer steps. Every rule is a function of a node with rewritten inputs. */
import type { Backend } from "@tiedlora/kernels";
import { mul, permute, reshape } from "../build.ts";
import { isOp, Node, topological, withInputs } from "../graph.ts";
import { inverse, product, sameShape } from "../shape.ts";
import { uniformElement } from "./emit.ts";
import { plainCall } from "./library.ts";

/** Rewrites the graph of `roots`. */
export function rewrite(roots: readonly Node[], backend: Backend): Node[] {
  const order = topological(roots);
  const users = new Map<Node, Node[]>(order.map((node) => [node, []]));
  for (const node of order) for (const input of new Set(node.inputs)) users.get(input)!.push(node);
  for (const root of roots) users.get(root)!.push(root); // whoever asked for it
  const rewritten = new Map<Node, Node>();
  const rewriter = new Rewriter(backend);
  for (const node of order) {
    const inputs = node.inputs.map((input) => rewritten.get(input)!);
    const uses = users.get(node)!;
    const fresh = rewriter.apply(withInputs(node, inputs), uses);
    rewriter.uses.set(fresh, uses.length);
    rewritten.set(node, fresh);
  }
  return roots.map((root) => rewritten.get(root)!);
}

/** A product over a longer k is not worth computing twice. */
const SHORT = 32;

/** Σ Aᵢ·Bᵢ, of `shape` before it was reshaped. */
interface Terms {
  readonly operands: readonly Node[];
  readonly matmul: Node;
}

class Rewriter {
  /** How many nodes use a rewritten node. */
  readonly uses = new Map<Node, number>();
  readonly #backend: Backend;

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  apply(node: Node, users: readonly Node[]): Node {
    if (isOp(node, "add")) return this.#sumOfProducts(node);
    if (isOp(node, "pick")) return this.#storeInUsersOrder(node, users);
    if (isOp(node, "permute") && isOp(node.inputs[0]!, "permute")) {
      const [inner] = node.inputs as [Node<"permute">];
      return permute(inner.inputs[0]!, node.attrs.order.map((axis) => inner.attrs.order[axis]!)); // prettier-ignore
    }
    return node;
  }

  /** A result of a library call that is used permuted is stored like that. */
  #storeInUsersOrder(node: Node<"pick">, users: readonly Node[]): Node {
    const orders = users.flatMap((user) => (isOp(user, "permute") ? [user.attrs.order] : []));
    const [order] = orders;
    const agreed = orders.every((other) => other.every((axis, i) => axis === order![i]));
    if (!order || !agreed || users.some((user) => user.op === "pick")) return node;
    const shape = order.map((axis) => node.shape[axis]!);
    const stored = new Node("pick", { ...node.attrs, order }, node.inputs, shape, node.dtype);
    return permute(stored, inverse(order));
  }

  /** A·B + C·D is one matmul with two terms; so is A·B + r + C·D, which is then followed by + r. */
  #sumOfProducts(node: Node<"add">): Node {
    for (const [x, y] of eitherFirst(node)) {
      const terms = this.#terms(y);
      if (!terms) continue;
      const direct = this.#terms(x);
      const joint = direct && this.#joint(direct, terms, node);
      if (joint) return joint;
      if (!isOp(x, "add") || this.uses.get(x)! > 1) continue;
      for (const [p, rest] of eitherFirst(x)) {
        const inner = this.#terms(p);
        const sum = inner && this.#joint(inner, terms, node);
        if (sum) return new Node("add", {}, [sum, rest], node.shape, node.dtype);
      }
    }
    return node;
  }

  #joint(a: Terms, b: Terms, like: Node): Node | null {
    const operands = [...a.operands, ...b.operands];
    const { shape, dtype } = a.matmul;
    if (!sameShape(shape, b.matmul.shape) || operands.length + 3 > this.#backend.caps.maxOperands)
      return null;
    const matmul = new Node("matmul", {}, operands, shape, dtype);
    this.uses.set(matmul, 1);
    if (!this.#backend.accelerates(plainCall(matmul))) return null;
    return reshape(matmul, like.shape);
  }

  /** `node` as a sum of products that nobody else needs, if it is one: perhaps reshaped, perhaps scaled. */
  #terms(node: Node): Terms | null {
    if (isOp(node, "matmul")) {
      const short = node.inputs.every((input, i) => i % 2 === 1 || input.shape.at(-1)! <= SHORT);
      return this.uses.get(node) === 1 || short ? { operands: node.inputs, matmul: node } : null;
    }
    if (isOp(node, "reshape")) return this.#terms(node.inputs[0]!);
    if (!isOp(node, "mul") || this.uses.get(node)! > 1) return null;
    for (const [p, factor] of eitherFirst(node)) {
      const terms = this.#terms(p);
      const scaled = terms && scaledTerms(terms, factor);
      if (scaled) return scaled;
    }
    return null;
  }
}

/** The operands of a node that may be swapped, in both orders. */
const eitherFirst = ({ inputs }: Node): [Node, Node][] => [inputs, inputs.toReversed()] as [Node, Node][];

/** (Σ Aᵢ·Bᵢ) · factor, with the factor inside: a number scales the smaller of A and B, a row of n numbers B. */
function scaledTerms({ operands, matmul }: Terms, factor: Node): Terms | null {
  const n = matmul.shape.at(-1)!;
  const number = uniformElement(factor);
  const row = !number && isOp(factor, "expand") && factor.inputs[0]!.shape.at(-1) === n;
  if (!number && !(row && product(factor.inputs[0]!.shape) === n)) return null;
  const source = reshape(number ?? factor.inputs[0]!, number ? [1] : [n]);
  const scaled = [...operands];
  for (let i = 0; i < operands.length; i += 2) {
    const [a, b] = [operands[i]!, operands[i + 1]!];
    const which = number && product(a.shape) < product(b.shape) ? i : i + 1;
    const operand = operands[which]!;
    if (operand.dtype !== matmul.dtype) return null;
    scaled[which] = mul(operand, source);
  }
  return { operands: scaled, matmul };
}
