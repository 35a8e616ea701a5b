/**
 * From nodes to instructions: the body of one kernel. Values that its nodes need are loaded if they are in memory, and otherwise
 * computed in the kernel. Movement takes no instruction: an element of a transpose is an element of its input at another index.
 *
 * The square of x + bᵀ, with x [4, 8] and b [8, 4] in memory, over a space [4, 8] with indices i and j:
 *   0: load x at 8i + j    1: load b at i + 4j    2: add 0 1    3: mul 2 2
 */
import type { BinaryOp, ComputeType, DType, Instr, UnaryOp } from "@tiedlora/kernels";
import { computeType, roundTo } from "@tiedlora/kernels";
import { allSame, less, same } from "@tiedlora/kernels/family";
import { getOrCreate } from "@tiedlora/kernels/collections";
import { isOp, isReduction, type Node, REDUCE_KIND, type Shape } from "../graph.ts";
import { product } from "../shape.ts";
import { descend, isMovement, type Movement, piecesOf, pushThrough } from "./kinds.ts";
import { folds, points, type Space, split } from "@tiedlora/kernels/space";
import type { Access, Affine, Split } from "@tiedlora/kernels/views";
import {
  identityAccess,
  isNowhere,
  operandAt,
  regroup,
  sameAccess,
  scaled,
  zero,
} from "@tiedlora/kernels/views";

/** What emission needs to know about the whole program. */
export interface Memory {
  /** Whether kernels that do not compute a node themselves read it from memory. */
  has(node: Node): boolean;
  /** The number of the value that holds a node. */
  idOf(node: Node): number;
  /** The slot of a run-time scalar. */
  slotOf(node: Node): number;
}

/** Instructions over a space; operands' `buffer` is the number of a value. */
export interface Emitted {
  readonly space: Space;
  readonly body: readonly Instr[];
  /** The results of the kernel's nodes: one per node, or one per piece of a `place` node. */
  readonly results: ReadonlyMap<Node, readonly Result[]>;
  /** Nodes that are loaded, and nodes that must be computed before the kernel runs. */
  readonly reads: ReadonlySet<Node>;
  readonly gates: ReadonlySet<Node>;
}

/** The element of a node that a point computes, the instruction that holds it, and whether it is one per row. */
export interface Result {
  readonly at: Access;
  readonly value: number;
  readonly perRow: boolean;
}

/** Why nothing was emitted: the node `store` can only be read from memory; or, if null, the nodes do not fit in one kernel. */
export interface Refusal {
  readonly store: Node | null;
}

/** Emits `nodes` (inputs before users) over `start` or a finer split of it. The element of `matmul` is `product`. */
export function emit(nodes: readonly Node[], start: Space, memory: Memory, matmul?: Node): Emitted | Refusal {
  let space = start;
  for (;;) {
    const emitter = new Emitter(space, memory, matmul);
    try {
      for (const node of nodes) emitter.emit(node);
      return emitter;
    } catch (obstacle) {
      if (!(obstacle instanceof Obstacle)) throw obstacle;
      if ("store" in obstacle.reason) return obstacle.reason;
      space = split(space, obstacle.reason);
    }
  }
}

/** An access that equals no other: a kernel cannot read a node that it writes in pieces. */
const NOWHERE: Access = { index: [{ offset: NaN, moving: [], coeffs: [] }], valid: [] };

/** Thrown at the first value that cannot be computed in a space. */
class Obstacle {
  readonly reason: Split | Refusal;

  constructor(reason: Split | Refusal) {
    this.reason = reason;
  }
}

class Emitter implements Emitted {
  readonly space: Space;
  readonly body: Instr[] = [];
  readonly results = new Map<Node, readonly Result[]>();
  readonly reads = new Set<Node>();
  readonly gates = new Set<Node>();
  readonly #memory: Memory;
  readonly #matmul: Node | undefined;
  /** The kernel's own nodes so far: which element of each a point computes. */
  readonly #own = new Map<Node, Access>();
  readonly #computed = new Map<Node, { readonly at: Access; readonly value: number }[]>();
  readonly #known = new Map<string, { readonly numbers: readonly number[]; readonly value: number }[]>();

  constructor(space: Space, memory: Memory, matmul?: Node) {
    this.space = space;
    this.#memory = memory;
    this.#matmul = matmul;
  }

  /** Computes a node of the kernel: an element at every point, or one per row. */
  emit(node: Node): void {
    if (isOp(node, "place")) return this.#emitPieces(node);
    const { at, perRow } = this.#elementsOf(node);
    this.#own.set(node, at);
    this.results.set(node, [{ at, value: this.#valueOf(node, at), perRow }]);
  }

  /** Computes the pieces of a node, which are of one shape; each is stored where it starts in the whole. */
  #emitPieces(node: Node<"place">): void {
    const { axis: along, starts, onto, moving } = node.attrs;
    if (onto) this.gates.add(node.inputs[0]);
    const pieces = piecesOf(node);
    const { at, perRow } = this.#elementsOf(pieces[0]!);
    const results = pieces.map((piece, i): Result => {
      const index = at.index.with(along, scaled(at.index[along]!, 1, starts[i]!, moving));
      return { at: { ...at, index }, value: this.#valueOf(piece, at), perRow };
    });
    this.results.set(node, results);
    this.#own.set(node, NOWHERE);
  }

  /**
   * Which of a node's elements a point computes. In a space [4, 8] whose second axis is folded, with indices i and j: of a
   * node [32] element 8i + j, of a node [4, 1] element (i, 0), one per row.
   */
  #elementsOf({ shape }: Node): { at: Access; perRow: boolean } {
    const perRow = folds(this.space) && !same(product(shape), points(this.space));
    return { at: this.#numbered((axis) => !perRow || !this.space.inner[axis], shape), perRow };
  }

  /** The points along the chosen axes of the space, numbered in row-major order, as indices into `shape`, of equal size. */
  #numbered(isChosen: (axis: number) => boolean, shape: Shape): Access {
    const { extents } = this.space;
    const { index, valid } = identityAccess(extents);
    const chosen = extents.filter((_, axis) => isChosen(axis));
    if (!same(product(chosen), product(shape))) throw new Obstacle({ store: null });
    const indices = index.filter((_, axis) => isChosen(axis));
    return accessOr(null, regroup({ index: indices, valid }, chosen, shape, extents));
  }

  /** The instruction that holds an element of `node`: known, loaded, or computed now. */
  #valueOf(node: Node, at: Access): number {
    const own = this.#own.get(node);
    if (own && !sameAccess(own, at)) throw new Obstacle({ store: null }); // another point's element, maybe computed later
    const list = getOrCreate(this.#computed, node, () => []);
    const known = list.find((entry) => sameAccess(entry.at, at));
    if (known) return known.value;
    const value = !own && this.#memory.has(node) ? this.#load(node, node, at) : this.#compute(node, at);
    list.push({ at, value });
    return value;
  }

  #compute(node: Node, at: Access): number {
    const dtype = computeType(node.dtype);
    if (node === this.#matmul) return this.#push({ op: "product", dtype });
    if (isOp(node, "const")) return this.#constant(node.attrs.value, node.dtype);
    if (isOp(node, "scalar")) return this.#push({ op: "scalar", slot: this.#memory.slotOf(node), dtype });
    if (isOp(node, "iota")) return this.#index(at.index[node.attrs.axis]!);
    if (isMovement(node)) return this.#moved(node, at);
    if (isReduction(node)) return this.#reduced(node, at);
    const args = node.inputs.map((input) => this.#valueOf(input, at));
    const [a, b, c] = args as [number, number, number];
    const to = isOp(node, "cast") ? node.attrs.to : null;
    if (to) return this.body[a]!.dtype === to ? a : this.#push({ op: "cast", a, to, dtype });
    if (isOp(node, "where")) return this.#push({ op: "where", a, b, c, dtype });
    if (args.length === 2) return this.#binary(node.op as BinaryOp, a, b, dtype);
    return this.#push({ op: node.op as UnaryOp, a, dtype });
  }

  /** A reduction, whose axes run over the inner axes of the space. Only the kernel's own reductions can be computed. */
  #reduced(node: Node<keyof typeof REDUCE_KIND>, { index, valid }: Access): number {
    if (!this.#own.has(node)) throw new Obstacle({ store: node });
    const [input] = node.inputs as [Node];
    const { axes } = node.attrs;
    const lengths = axes.map((axis) => input.shape[axis]!);
    const folded = this.#numbered((axis) => this.space.inner[axis]!, lengths).index;
    const all = index.map((affine, axis) => folded[axes.indexOf(axis)] ?? affine);
    const a = this.#valueOf(input, { index: all, valid });
    return this.#push({ op: "reduce", kind: REDUCE_KIND[node.op], a, dtype: computeType(node.dtype) });
  }

  /** An element of a movement node: the element of its input that it shows, or 0 in a padding. */
  #moved(node: Node<Movement>, at: Access): number {
    const [input, gate] = node.inputs as [Node, Node?];
    if (gate) {
      this.gates.add(gate);
      return this.#valueOf(input, at);
    }
    const element = uniformElement(node);
    if (element) {
      const index = element.shape.map(() => zero(at.valid.length));
      return this.#valueOf(element, { index, valid: at.valid });
    }
    // the input of a reshape has the same layout in memory as the reshape
    const isAtHand = (n: Node): boolean => this.#own.has(n) || this.#memory.has(n);
    const base = descend(node, (n) => isOp(n, "reshape") && (n === node || !isAtHand(n)));
    if (!this.#own.has(base) && this.#memory.has(base)) return this.#load(base, node, at);
    const apart = isOp(node, "reshape") ? base : this.#own.has(node) ? input : node;
    const from = accessOr(apart, pushThrough(node, at, this.space.extents));
    const value = this.#valueOf(input, from);
    return isOp(node, "pad") ? this.#masked(from, value) : value;
  }

  /** Loads an element of `base`, which is in memory, as one of `as`: the same values in another shape. */
  #load(base: Node, as: Node, at: Access): number {
    const dtype = computeType(base.dtype);
    if (isNowhere(at)) return this.#constant(0, dtype);
    this.reads.add(base);
    const from = operandAt(as.shape, base.dtype, at, this.#memory.idOf(base));
    const { offset, strides, valid = [], moving = [] } = from.view;
    const numbers = [offset, ...strides];
    let key = `load ${from.buffer}`;
    valid.forEach((range, axis) => {
      if (range) key += ` ${axis}`;
      numbers.push(...(range ?? []));
    });
    for (const { slot, factor } of moving) {
      key += ` s${slot}`;
      numbers.push(factor);
    }
    return this.#push({ op: "load", from, dtype }, key, numbers);
  }

  // --- single instructions

  /** The number of an instruction, which is added if there is none with this key and these numbers, which depend on sizes. */
  #push(instr: Instr, key: string = Object.values(instr).join(" "), numbers: readonly number[] = []): number {
    const others = getOrCreate(this.#known, key, () => []);
    const known = others.find((other) => allSame(other.numbers, numbers));
    if (known) return known.value;
    others.push({ numbers, value: this.body.length });
    return this.body.push(instr) - 1;
  }

  #constant(number: number, type: DType): number {
    const [value, dtype] = [roundTo(type, number), computeType(type)];
    return this.#push({ op: "const", value, dtype }, `const ${dtype}`, [value]);
  }

  #binary(op: BinaryOp, a: number, b: number, dtype: ComputeType): number {
    return this.#push({ op, a, b, dtype });
  }

  /** An affine function of the kernel's indices, as i32. */
  #index({ offset, coeffs, moving }: Affine): number {
    const times = (instr: Instr, factor: number): number => {
      const value = this.#push(instr);
      return same(factor, 1) ? value : this.#binary("mul", value, this.#constant(factor, "i32"), "i32");
    };
    const terms: number[] = [];
    coeffs.forEach((c, axis) => c !== 0 && terms.push(times({ op: "index", axis, dtype: "i32" }, c)));
    for (const { slot, factor } of moving) terms.push(times({ op: "scalar", slot, dtype: "i32" }, factor));
    if (!same(offset, 0) || terms.length === 0) terms.push(this.#constant(offset, "i32"));
    return terms.reduce((a, b) => this.#binary("add", a, b, "i32"));
  }

  /** `value` at the valid points, 0 elsewhere. A load with the same valid ranges does that itself. */
  #masked(at: Access, value: number): number {
    const instr = this.body[value]!;
    if (instr.op === "load" && instr.from.view.valid === at.valid) return value;
    const outside = this.#constant(0, instr.dtype);
    if (isNowhere(at)) return outside;
    const tests = at.valid.flatMap((range, axis) => (range ? this.#isWithin(axis, range) : []));
    if (tests.length === 0) return value;
    const inside = tests.reduce((a, b) => this.#binary("and", a, b, "bool"));
    return this.#push({ op: "where", a: inside, b: value, c: outside, dtype: instr.dtype });
  }

  /** The tests that tell whether the index along an axis is in a range: none, one or two. */
  #isWithin(axis: number, [from, to]: readonly [number, number]): number[] {
    const index = (): number => this.#push({ op: "index", axis, dtype: "i32" });
    const above = (): number => this.#binary("le", this.#constant(from, "i32"), index(), "bool");
    const below = (): number => this.#binary("lt", index(), this.#constant(to, "i32"), "bool");
    return [...(less(0, from) ? [above()] : []), ...(less(to, this.space.extents[axis]!) ? [below()] : [])];
  }
}

/** Returns `access` if it is an access; otherwise throws the obstacle: the split that the space needs, or `store`. */
function accessOr(store: Node | null, access: Access | Split | null): Access {
  if (access && "index" in access) return access;
  throw new Obstacle(access ?? { store });
}

/** The node of one element that `node` repeats everywhere, or null. */
export function uniformElement(node: Node): Node | null {
  while (isMovement(node) && !isOp(node, "pad") && !isOp(node, "after")) {
    if (product(node.inputs[0].shape) === 1) return node.inputs[0];
    node = node.inputs[0]!;
  }
  return node.shape.length === 0 ? node : null;
}
