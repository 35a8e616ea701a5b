/**
 * From nodes to instructions. The nodes of a kernel are computed at their elements of its space, everything that they need
 * and that is not in memory on the way to them. Movement changes where an input is read; what cannot be read is reported.
 */
import type { BinaryOp, ComputeType, DType, Instr, UnaryOp } from "@tiedlora/kernels";
import { computeType, roundTo } from "@tiedlora/kernels";
import { isOp, isReduction, type Node, REDUCE_KIND, type Shape } from "../graph.ts";
import { product } from "../shape.ts";
import { descend, isMovement, type Movement, piecesOf, pushThrough } from "./kinds.ts";
import { folds, points, type Space, split } from "./space.ts";
import type { Access, Affine, Split } from "./views.ts";
import { identityAccess, operandAt, regroup, sameAccess, scaled, zero } from "./views.ts";

/** What emission has to know of the whole program. */
export interface Memory {
  /** Whether a node is read from memory wherever it is not computed. */
  has(node: Node): boolean;
  /** The number of the value that holds it. */
  valueOf(node: Node): number;
  /** The number of a scalar. */
  slotOf(node: Node): number;
}

/** Instructions over a space; operands' `buffer` is the number of a value. */
export interface Emitted {
  readonly space: Space;
  readonly body: readonly Instr[];
  /** Of each of the nodes: where it is computed, the instruction with its value, and whether that is one per row. */
  readonly results: ReadonlyMap<Node, readonly Result[]>;
  /** Nodes that are loaded, and nodes that must be known before. */
  readonly reads: ReadonlySet<Node>;
  readonly gates: ReadonlySet<Node>;
}
export interface Result {
  readonly at: Access;
  readonly value: number;
  readonly perRow: boolean;
}

/** Why nothing was emitted: `store` cannot be read unless it is in memory; null: the nodes do not go together. */
export interface Refusal {
  readonly store: Node | null;
}

/** Emits `nodes` (inputs before users). A `product` among them is a matmul, whose result is at hand. */
export function emit(
  nodes: readonly Node[],
  start: Space,
  memory: Memory,
  product?: Node,
): Emitted | Refusal {
  let space = start;
  for (;;) {
    const emitter = new Emitter(space, memory, product);
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

/** Equal to no access: what is written in pieces cannot be read by the same kernel. */
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
  readonly #product: Node | undefined;
  /** Where the kernel's own nodes are computed. */
  readonly #own = new Map<Node, Access>();
  readonly #computed = new Map<Node, { readonly at: Access; readonly value: number }[]>();
  readonly #known = new Map<string, number>();

  constructor(space: Space, memory: Memory, product?: Node) {
    this.space = space;
    this.#memory = memory;
    this.#product = product;
  }

  /** Computes a node of the kernel: element by element, or row by row. */
  emit(node: Node): void {
    if (isOp(node, "place")) return this.#place(node);
    const { at, perRow } = this.#elements(node);
    this.#own.set(node, at);
    this.results.set(node, [{ at, value: this.#value(node, at), perRow }]);
  }

  /** Computes the pieces at their elements; a piece is part of what the node is. */
  #place(node: Node<"place">): void {
    const { axis: along, starts, onto } = node.attrs;
    if (onto) this.gates.add(node.inputs[0]!);
    const pieces = piecesOf(node);
    const { at, perRow } = this.#elements(pieces[0]!);
    this.results.set(
      node,
      pieces.map((piece, i) => {
        const index = at.index.map((affine, axis) =>
          axis === along ? scaled(affine, 1, starts[i]!) : affine,
        );
        return { at: { ...at, index }, value: this.#value(piece, at), perRow };
      }),
    );
    this.#own.set(node, NOWHERE);
  }

  /** Where in the space the elements of a node are. */
  #elements({ shape }: Node): { at: Access; perRow: boolean } {
    const perRow = folds(this.space) && product(shape) !== points(this.space);
    return { at: this.#access((axis) => !perRow || !this.space.inner[axis], shape), perRow };
  }

  /** The points along some axes of the space, in row-major order, as indices over `lengths`. */
  #access(which: (axis: number) => boolean, lengths: Shape): Access {
    const { extents } = this.space;
    const { index, valid } = identityAccess(extents);
    const from = extents.filter((_, axis) => which(axis));
    if (product(from) !== product(lengths)) throw new Obstacle({ store: null });
    const units = { index: index.filter((_, axis) => which(axis)), valid };
    return accessOr(null, regroup(units, from, lengths, extents));
  }

  /** The instruction that holds `node` at an access. */
  #value(node: Node, at: Access): number {
    const own = this.#own.get(node);
    if (own && !sameAccess(own, at)) throw new Obstacle({ store: null }); // of another row, which may not be there yet
    const list = this.#computed.get(node) ?? [];
    const known = list.find((entry) => sameAccess(entry.at, at));
    if (known) return known.value;
    const value = !own && this.#memory.has(node) ? this.#load(node, node, at) : this.#compute(node, at);
    list.push({ at, value });
    this.#computed.set(node, list);
    return value;
  }

  #compute(node: Node, at: Access): number {
    const dtype = computeType(node.dtype);
    if (node === this.#product) return this.#push({ op: "product", dtype });
    if (isOp(node, "const")) return this.#constant(node.attrs.value, node.dtype);
    if (isOp(node, "scalar")) return this.#push({ op: "scalar", slot: this.#memory.slotOf(node), dtype });
    if (isOp(node, "iota")) return this.#index(at.index[node.attrs.axis]!);
    if (isMovement(node)) return this.#moved(node, at);
    const inputAt = isReduction(node) ? this.#unfold(node, at) : at;
    const args = node.inputs.map((input) => this.#value(input, inputAt));
    const [a, b, c] = args as [number, number, number];
    if (isReduction(node)) return this.#push({ op: "reduce", kind: REDUCE_KIND[node.op], a, dtype });
    if (isOp(node, "cast")) {
      const { to } = node.attrs;
      return this.body[a]!.dtype === to ? a : this.#push({ op: "cast", a, to, dtype });
    }
    if (isOp(node, "where")) return this.#push({ op: "where", a, b, c, dtype });
    if (args.length === 2) return this.#binary(node.op as BinaryOp, a, b, dtype);
    return this.#push({ op: node.op as UnaryOp, a, dtype });
  }

  /** What a reduction that is needed at an access reads: its axes run over the inner axes. */
  #unfold(node: Node<keyof typeof REDUCE_KIND>, { index, valid }: Access): Access {
    if (!this.#own.has(node)) throw new Obstacle({ store: node });
    const { axes } = node.attrs;
    const lengths = axes.map((axis) => node.inputs[0]!.shape[axis]!);
    const folded = this.#access((axis) => this.space.inner[axis]!, lengths).index;
    return { index: index.map((affine, axis) => folded[axes.indexOf(axis)] ?? affine), valid };
  }

  /** What a movement node moves, read where it comes from. */
  #moved(node: Node<Movement>, at: Access): number {
    const [input, gate] = node.inputs as [Node, Node?];
    if (gate) {
      this.gates.add(gate);
      return this.#value(input, at);
    }
    const element = uniformElement(node);
    if (element)
      return this.#value(element, { index: element.shape.map(() => zero(at.valid.length)), valid: at.valid });
    const base = this.#reshaped(node);
    if (!this.#own.has(base) && this.#memory.has(base)) return this.#load(base, node, at);
    const apart = isOp(node, "reshape") ? base : this.#own.has(node) ? input : node;
    const from = accessOr(apart, pushThrough(node, at, this.space.extents));
    const value = this.#value(input, from);
    return isOp(node, "pad") ? this.#masked(from, value) : value;
  }

  /** What a reshape sees otherwise: in memory the two are the same. */
  #reshaped(node: Node): Node {
    const isAtHand = (base: Node): boolean => this.#own.has(base) || this.#memory.has(base);
    return descend(node, (base) => isOp(base, "reshape") && (base === node || !isAtHand(base)));
  }

  #load(base: Node, as: Node, at: Access): number {
    const dtype = computeType(base.dtype);
    if (at.valid.some((range) => range !== null && range[0] >= range[1])) return this.#constant(0, dtype);
    this.reads.add(base);
    const from = operandAt(as.shape, base.dtype, at, this.#memory.valueOf(base));
    return this.#push({ op: "load", from, dtype }, `load ${JSON.stringify(from)}`);
  }

  // --- single instructions; equal ones are one

  #push(instr: Instr, key: string = Object.values(instr).join(" ")): number {
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    this.#known.set(key, this.body.length);
    return this.body.push(instr) - 1;
  }

  #constant(number: number, type: DType): number {
    const [value, dtype] = [roundTo(type, number), computeType(type)];
    return this.#push({ op: "const", value, dtype }, `const ${Object.is(value, -0) ? "-0" : value} ${dtype}`);
  }

  #binary(op: BinaryOp, a: number, b: number, dtype: ComputeType): number {
    return this.#push({ op, a, b, dtype });
  }

  /** An affine function of the kernel's indices, as i32. */
  #index({ offset, coeffs, moving }: Affine): number {
    const times = (instr: Instr, factor: number): number => {
      const value = this.#push(instr);
      return factor === 1 ? value : this.#binary("mul", value, this.#constant(factor, "i32"), "i32");
    };
    const terms: number[] = [];
    coeffs.forEach((c, axis) => c !== 0 && terms.push(times({ op: "index", axis, dtype: "i32" }, c)));
    for (const { slot, factor } of moving) terms.push(times({ op: "scalar", slot, dtype: "i32" }, factor));
    if (offset !== 0 || terms.length === 0) terms.push(this.#constant(offset, "i32"));
    return terms.reduce((a, b) => this.#binary("add", a, b, "i32"));
  }

  /** `value` where `valid` holds, 0 elsewhere. A load sees to that itself. */
  #masked({ valid }: Access, value: number): number {
    const instr = this.body[value]!;
    if (instr.op === "load" && instr.from.view.valid === valid) return value;
    const { dtype } = instr;
    const zeroValue = this.#constant(0, dtype);
    let inside: number | null = null;
    for (const [axis, range] of valid.entries()) {
      if (!range) continue;
      const [from, to] = range;
      if (from >= to) return zeroValue;
      const tests: number[] = [];
      const index = (): number => this.#push({ op: "index", axis, dtype: "i32" });
      if (from > 0) tests.push(this.#binary("le", this.#constant(from, "i32"), index(), "bool"));
      if (to < this.space.extents[axis]!)
        tests.push(this.#binary("lt", index(), this.#constant(to, "i32"), "bool"));
      for (const test of tests) inside = inside === null ? test : this.#binary("and", inside, test, "bool");
    }
    return inside === null ? value : this.#push({ op: "where", a: inside, b: value, c: zeroValue, dtype });
  }
}

/** An access that is affine; otherwise the space has to be split, or `store` to be in memory. */
function accessOr(store: Node | null, access: Access | Split | null): Access {
  if (access && "index" in access) return access;
  throw new Obstacle(access ?? { store });
}

/** The node of one element that `node` shows everywhere, or null. */
export function uniformElement(node: Node): Node | null {
  while (isMovement(node) && !isOp(node, "pad") && !isOp(node, "after")) {
    if (product(node.inputs[0]!.shape) === 1) return node.inputs[0]!;
    node = node.inputs[0]!;
  }
  return node.shape.length === 0 ? node : null;
}
