/**
 * From nodes to instructions. The nodes of a kernel are computed at their elements of its space, everything that they need
 * and that is not in memory on the way to them. Movement changes where an input is read; what cannot be read is reported.
 */
import {
  type BinaryOp,
  computeType,
  type ComputeType,
  type DType,
  type Instr,
  type Operand,
  roundTo,
  type UnaryOp,
} from "@tiedlora/kernels";
import { isOp, isReduction, type Node, REDUCE_KIND } from "../node.ts";
import { product } from "../shape.ts";
import { type Access, type Affine, contiguousStrides, identityAccess, isMovement } from "../views.ts";
import { type Movement } from "../views.ts";
import { linearize, pushThrough, regroup, sameAccess, type Split, type Valid, zero } from "../views.ts";
import { folds, points, type Space, split } from "./space.ts";

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
  /** Where each of the nodes is computed, the instruction with its value, and whether that is one value per row. */
  readonly results: ReadonlyMap<Node, Result>;
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
    const result = new Emitter(space, memory, product).run(nodes);
    if (!("axis" in result)) return result;
    space = split(space, result);
  }
}

/** The operand that reads or writes `node`, which lies in row-major order, at an access. */
export function operandAt(node: Node, base: Node, { index, valid }: Access, value: number): Operand {
  const { offset, coeffs } = linearize(index, contiguousStrides(node.shape), valid.length);
  const view = { offset, strides: coeffs };
  const whole = valid.every((range) => range === null);
  return { buffer: value, dtype: base.dtype, view: whole ? view : { ...view, valid } };
}

class Emitter {
  readonly #space: Space;
  readonly #memory: Memory;
  readonly #product: Node | undefined;
  readonly #body: Instr[] = [];
  readonly #results = new Map<Node, Result>();
  readonly #reads = new Set<Node>();
  readonly #gates = new Set<Node>();
  /** Where the kernel's own nodes are computed. */
  readonly #own = new Map<Node, Access>();
  readonly #computed = new Map<Node, { readonly at: Access; readonly value: number }[]>();
  readonly #known = new Map<string, number>();
  #obstacle: Split | Refusal | null = null;

  constructor(space: Space, memory: Memory, product?: Node) {
    this.#space = space;
    this.#memory = memory;
    this.#product = product;
  }

  run(nodes: readonly Node[]): Emitted | Refusal | Split {
    const all = points(this.#space);
    for (const node of nodes) {
      const perRow = folds(this.#space) && product(node.shape) !== all;
      const at = this.#home(node, perRow);
      if (at) this.#own.set(node, at);
      const value = at && !this.#obstacle ? this.#value(node, at) : 0;
      if (this.#obstacle) return this.#obstacle;
      this.#results.set(node, { at: at!, value, perRow });
    }
    const [space, body, results] = [this.#space, this.#body, this.#results];
    return { space, body, results, reads: this.#reads, gates: this.#gates };
  }

  #fail(obstacle: Split | Refusal): number {
    this.#obstacle ??= obstacle;
    return this.#constant(0, "f32");
  }

  /** One index for each axis of the space that `which` picks. */
  #units(which: (axis: number) => boolean): { index: Affine[]; lengths: number[]; valid: Valid[] } {
    const { extents } = this.#space;
    const { index, valid } = identityAccess(extents);
    const picked = <T>(list: readonly T[]): T[] => list.filter((_, axis) => which(axis));
    return { index: picked(index), lengths: picked(extents), valid };
  }

  /** The access at which a node of the kernel is computed: element by element, or row by row. */
  #home(node: Node, perRow: boolean): Access | null {
    const { inner, extents } = this.#space;
    const units = this.#units((axis) => !perRow || !inner[axis]);
    if (product(units.lengths) !== product(node.shape)) {
      this.#fail({ store: null });
      return null;
    }
    const access = regroup(units, units.lengths, node.shape, extents);
    if (access && !("axis" in access)) return access;
    this.#fail(access ?? { store: null });
    return null;
  }

  /** The instruction that holds `node` at an access. */
  #value(node: Node, at: Access): number {
    const own = this.#own.get(node);
    if (own && !sameAccess(own, at)) return this.#fail({ store: null }); // of another row, which may not be there yet
    const list = this.#computed.get(node) ?? [];
    const known = list.find((entry) => sameAccess(entry.at, at));
    if (known) return known.value;
    const value = !own && this.#memory.has(node) ? this.#load(node, node, at) : this.#compute(node, at);
    list.push({ at, value });
    this.#computed.set(node, list);
    return value;
  }

  #compute(node: Node, at: Access): number {
    if (this.#obstacle) return 0;
    const dtype = computeType(node.dtype);
    if (node === this.#product) return this.#push({ op: "product", dtype }, "product");
    if (isOp(node, "const")) return this.#constant(node.attrs.value, node.dtype);
    if (isOp(node, "scalar")) {
      const slot = this.#memory.slotOf(node);
      return this.#push({ op: "scalar", slot, dtype }, `scalar ${slot} ${dtype}`);
    }
    if (isOp(node, "iota")) return this.#index(at.index[node.attrs.axis]!);
    if (isMovement(node)) return this.#moved(node, at);
    const inputAt = isReduction(node) ? this.#unfold(node, at) : at;
    if (!inputAt) return 0;
    const args = node.inputs.map((input) => this.#value(input, inputAt));
    const [a, b, c] = args as [number, number, number];
    if (isReduction(node)) {
      const kind = REDUCE_KIND[node.op];
      return this.#push({ op: "reduce", kind, a, dtype }, `reduce ${kind} ${a}`);
    }
    if (isOp(node, "cast")) return this.#cast(a, node.attrs.to);
    if (isOp(node, "where")) return this.#where(a, b, c);
    if (args.length === 2) return this.#binary(node.op as BinaryOp, a, b, dtype);
    return this.#push({ op: node.op as UnaryOp, a, dtype }, `${node.op} ${a}`);
  }

  /** What a reduction that is needed at an access reads: its axes run over the inner axes. */
  #unfold(node: Node<keyof typeof REDUCE_KIND>, at: Access): Access | null {
    const { inner, extents } = this.#space;
    const { axes } = node.attrs;
    const units = this.#units((axis) => inner[axis]!);
    const lengths = axes.map((axis) => node.inputs[0]!.shape[axis]!);
    const fits = this.#own.has(node) && product(units.lengths) === product(lengths);
    const digits = fits ? regroup(units, units.lengths, lengths, extents) : null;
    if (!digits || "axis" in digits) {
      this.#fail(digits ?? { store: this.#own.has(node) ? null : node });
      return null;
    }
    const index = at.index.map((affine, axis) =>
      axes.includes(axis) ? digits.index[axes.indexOf(axis)]! : affine,
    );
    return { index, valid: at.valid };
  }

  /** What a movement node moves, read where it comes from. */
  #moved(node: Node<Movement>, at: Access): number {
    const [input, gate] = node.inputs as [Node, Node?];
    if (gate) {
      this.#gates.add(gate);
      return this.#value(input, at);
    }
    const element = uniformElement(node);
    if (element)
      return this.#value(element, { index: element.shape.map(() => zero(at.valid.length)), valid: at.valid });
    const base = this.#reshaped(node);
    if (!this.#own.has(base) && this.#memory.has(base)) return this.#load(base, node, at);
    const from = pushThrough(node, at, this.#space.extents);
    if (from && !("axis" in from)) {
      const value = this.#value(input, from);
      return isOp(node, "pad") ? this.#masked(from, value) : value;
    }
    const apart = isOp(node, "reshape") ? base : this.#own.has(node) ? input : node;
    return this.#fail(from ?? { store: apart });
  }

  /** What a reshape sees otherwise: in memory the two are the same. */
  #reshaped(node: Node): Node {
    let base = node;
    while (isOp(base, "reshape") && (base === node || (!this.#own.has(base) && !this.#memory.has(base)))) {
      base = base.inputs[0]!;
    }
    return base;
  }

  #load(base: Node, as: Node, at: Access): number {
    const dtype = computeType(base.dtype);
    if (at.valid.some((range) => range !== null && range[0] >= range[1])) return this.#constant(0, dtype);
    this.#reads.add(base);
    const from = operandAt(as, base, at, this.#memory.valueOf(base));
    const { offset, strides, valid } = from.view;
    const ranges = valid?.map((range) => range?.join("-")).join() ?? "";
    return this.#push(
      { op: "load", from, dtype },
      `load ${from.buffer} ${offset} ${strides.join()} ${ranges}`,
    );
  }

  // --- single instructions; equal ones are one

  #push(instr: Instr, key: string): number {
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    this.#known.set(key, this.#body.length);
    return this.#body.push(instr) - 1;
  }

  #constant(value: number, dtype: DType): number {
    const rounded = roundTo(dtype, value);
    const type = computeType(dtype);
    const text = Object.is(rounded, -0) ? "-0" : String(rounded);
    return this.#push({ op: "const", value: rounded, dtype: type }, `const ${text} ${type}`);
  }

  #binary(op: BinaryOp, a: number, b: number, dtype: ComputeType): number {
    return this.#push({ op, a, b, dtype }, `${op} ${a} ${b}`);
  }

  #where(a: number, b: number, c: number): number {
    return this.#push({ op: "where", a, b, c, dtype: this.#body[b]!.dtype }, `where ${a} ${b} ${c}`);
  }

  #cast(a: number, to: DType): number {
    if (this.#body[a]!.dtype === to) return a;
    return this.#push({ op: "cast", a, to, dtype: computeType(to) }, `cast ${a} ${to}`);
  }

  #axis(axis: number): number {
    return this.#push({ op: "index", axis, dtype: "i32" }, `index ${axis}`);
  }

  /** An affine function of the kernel's indices, as i32. */
  #index({ offset, coeffs }: Affine): number {
    let sum: number | null = null;
    coeffs.forEach((c, axis) => {
      if (c === 0) return;
      const index = this.#axis(axis);
      const term = c === 1 ? index : this.#binary("mul", index, this.#constant(c, "i32"), "i32");
      sum = sum === null ? term : this.#binary("add", sum, term, "i32");
    });
    if (sum === null) return this.#constant(offset, "i32");
    return offset === 0 ? sum : this.#binary("add", sum, this.#constant(offset, "i32"), "i32");
  }

  /** `value` where `valid` holds, 0 elsewhere. A load sees to that itself. */
  #masked({ valid }: Access, value: number): number {
    const instr = this.#body[value]!;
    if (instr.op === "load" && instr.from.view.valid === valid) return value;
    const zeroValue = this.#constant(0, instr.dtype);
    let inside: number | null = null;
    const and = (test: number): void => {
      inside = inside === null ? test : this.#binary("and", inside, test, "bool");
    };
    for (const [axis, range] of valid.entries()) {
      if (!range) continue;
      const [from, to] = range;
      if (from >= to) return zeroValue;
      if (from > 0) and(this.#binary("le", this.#constant(from, "i32"), this.#axis(axis), "bool"));
      if (to < this.#space.extents[axis]!)
        and(this.#binary("lt", this.#axis(axis), this.#constant(to, "i32"), "bool"));
    }
    return inside === null ? value : this.#where(inside, value, zeroValue);
  }
}

/** The node of one element that `node` shows everywhere, or null. */
export function uniformElement(node: Node): Node | null {
  while (isMovement(node) && !isOp(node, "pad") && !isOp(node, "after")) {
    if (product(node.inputs[0]!.shape) === 1) return node.inputs[0]!;
    node = node.inputs[0]!;
  }
  return node.shape.length === 0 ? node : null;
}
