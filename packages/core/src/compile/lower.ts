/**
 * Lowering: turns the user's graph into a graph of nodes that kernels can compute. Equal nodes become one; empty nodes take no
 * work; random bits, and library calls that the backend lacks, become elementwise nodes and reductions.
 */
import { computeType, isFloat, reduceIdentity, type Target } from "@tiedlora/kernels";
import { allSame, same } from "@tiedlora/kernels/family";
import * as build from "../build.ts";
import { getOrCreate } from "@tiedlora/kernels/collections";
import type { Attrs, Inputs, Moves, Range, Shape } from "../graph.ts";
import { isOp, isReduction, Node, REDUCE_KIND, topological, withInputs } from "../graph.ts";
import { composeActivation, isActivation, power } from "../ops/activations.ts";
import { composeAttention, composeAttentionGrad } from "../ops/attention.ts";
import { composeDequantize, gatherRows } from "../ops/quantized.ts";
import { product, sameShape } from "../shape.ts";
import type { Trace } from "../trace.ts";
import { isLibrary, isMovement, type LibraryNode } from "./kinds.ts";
import { isAccelerated, resultShapes } from "./library.ts";

export interface Lowered {
  /** The lowered roots, in order. */
  readonly roots: readonly Node[];
  /** All nodes of the lowered graph, except the inner nodes of library calls that were composed of primitives. */
  readonly nodes: ReadonlySet<Node>;
}

/** What programs are made for, and the numbers that they are given at run time; placements in `overwriting` need no copy. */
interface Given {
  readonly target: Target;
  readonly slots: ReadonlyMap<Node, number>;
  readonly moves: ReadonlyMap<Node, Moves>;
  readonly overwriting: ReadonlySet<Node>;
}

/** The run-time numbers that move slices and paddings along each axis; their slots come after those of the graph's scalars. */
export function movesOf({ windows, scalars }: Trace, moving: ReadonlySet<number>): Map<Node, Moves> {
  const moves = new Map([...moving].map((start, i) => [start, [{ slot: scalars.length + i, factor: 1 }]]));
  let start = 0;
  const along = windows.map((node): [Node, Moves] => [node, node.shape.map(() => moves.get(start++) ?? [])]);
  return new Map(along.filter(([, axes]) => axes.some(({ length }) => length > 0)));
}

/** Lowers the graph of `roots`. */
export function lower(roots: readonly Node[], given: Given): Lowered {
  const lowering = new Lowering(given);
  const order = topological(roots);
  return { nodes: new Set([...lowering.all(order), ...lowering.parts]), roots: lowering.all(roots) };
}

class Lowering {
  /** The nodes that make up elementwise operations that are not primitive: activations and powers. */
  readonly parts: Set<Node> = new Set();
  readonly #given: Given;
  /** The lowered form of a node: one node, or one per result for nodes with several results. */
  readonly #lowered = new Map<Node, readonly Node[]>();
  /** By their composed form: quantized weights. They have the type of their words, since arithmetic is not done on them. */
  readonly #packed = new Map<Node, Node<"dequantize">>();
  /** Nodes by all that they are made of but their numbers. */
  readonly #unique = new Map<string, { readonly node: Node; readonly numbers: readonly number[] }[]>();
  readonly #ids = new Map<object, number>();

  constructor(given: Given) {
    this.#given = given;
  }

  /** The lowered forms of nodes, whose inputs may be lowered already. */
  all(nodes: readonly Node[]): Node[] {
    for (const node of topological(nodes, (n) => (this.#lowered.has(n) ? [] : n.inputs))) {
      if (this.#lowered.has(node)) continue;
      const results = this.#lower(node);
      for (const result of results) this.#lowered.set(result, [result]);
      this.#lowered.set(node, results);
    }
    return nodes.map((node) => this.#lowered.get(node)![0]!);
  }

  #parted(composed: Node, { inputs }: Node): Node {
    const result = this.#one(composed);
    for (const part of topological([result], (n) => (inputs.includes(n) ? [] : n.inputs)))
      this.parts.add(part);
    return result;
  }

  #one(node: Node): Node {
    return this.all([node])[0]!;
  }

  #lower(node: Node): readonly Node[] {
    if (isOp(node, "pick")) return [this.#lowered.get(node.inputs[0])![node.attrs.index]!];
    const inputs = node.inputs.map((input) => this.#lowered.get(input)![0]!);
    if (isLibrary(node)) return this.#library(withInputs(node, inputs));
    const moves = this.#given.moves.get(node);
    const lowered = withInputs(node, inputs);
    if (moves && isOp(lowered, "place"))
      return [this.#onto(lowered, moves, this.#given.overwriting.has(node))];
    return [moves ? this.#moving(lowered, moves) : this.#simple(lowered)];
  }

  #simple(node: Node): Node {
    const [input] = node.inputs as [Node];
    if (product(node.shape) === 0)
      return this.#unify(new Node("const", { value: 0 }, [], node.shape, node.dtype)); // empty
    if (isReduction(node)) {
      if (product(input.shape) === 0)
        return this.#fill(reduceIdentity(REDUCE_KIND[node.op], computeType(node.dtype)), node);
      return sameShape(input.shape, node.shape) ? input : this.#unify(node);
    }
    if (isOp(node, "pad") && product(input.shape) === 0) return this.#fill(0, node);
    if (isOp(node, "reshape")) {
      if (sameShape(node.shape, input.shape)) return input;
      if (isOp(input, "reshape")) return this.#simple(withInputs(node, input.inputs));
    }
    if (isOp(node, "scalar") && !this.#given.slots.has(node))
      return this.#unify(build.constant(node.attrs.value, node.dtype));
    if (isActivation(node)) return this.#parted(composeActivation(node, input), node);
    if (isOp(node, "pow")) return this.#parted(power(input, node.inputs[1]), node);
    if (isOp(node, "dequantize")) {
      const composed = this.#parted(composeDequantize(node), node);
      this.#packed.set(composed, new Node(node.op, node.attrs, node.inputs, node.shape, "u32"));
      return composed;
    }
    if (isOp(node, "concat")) return this.#placed(this.#unify(node));
    if (isOp(node, "place")) return node; // not unified: it shares memory with other `place` nodes
    if (isOp(node, "randomBits")) return this.#one(threefry(input, node.inputs[1], node.shape));
    return this.#unify(node);
  }

  /** A slice or padding with starts that vary. A padding becomes a slice of a wider one with all its zeros on both sides. */
  #moving(node: Node, moving: Moves): Node {
    const { shape, dtype } = node;
    if (isOp(node, "slice"))
      return this.#simple(new Node("slice", { ...node.attrs, moving }, node.inputs, shape, dtype));
    const { widths } = node.attrs as Attrs["pad"];
    const wider = widths.map(([before, after]): [number, number] => [before + after, before + after]);
    const ranges = widths.map(([, after], axis): Range => [after, after + shape[axis]!, 1]);
    return this.#one(new Node("slice", { ranges, moving }, [build.pad(node.inputs[0], wider)], shape, dtype));
  }

  /** A placement whose start is given at run time: into a copy of the first input, unless that is overwritten. */
  #onto(node: Node<"place">, moves: Moves, overwrites: boolean): Node {
    const { inputs, attrs, shape, dtype } = node;
    if (product(shape) === 0) return this.#simple(node);
    const whole: Attrs["place"] = { ...attrs, starts: [0], onto: false };
    const copy = overwrites ? inputs[0] : new Node("place", whole, [inputs[0]], shape, dtype);
    const moving = moves[attrs.axis]!;
    return new Node("place", { ...whole, onto: true, moving }, [copy, ...inputs.slice(1)], shape, dtype);
  }

  /** A concatenation as `place` nodes: each writes pieces of one shape, as many as one kernel can read. */
  #placed(node: Node<"concat">): Node {
    const known = this.#lowered.get(node)?.[0];
    if (known) return known;
    const room = this.#given.target.caps.maxOperands - 2;
    let whole: Node | null = null;
    for (const group of piecesByLength(node)) {
      for (let i = 0; i < group.length; i += room) {
        const part = group.slice(i, i + room);
        const pieces = part.map(({ piece }) => piece) as [Node, ...Node[]];
        const inputs: Inputs["place"] = whole ? [whole, ...pieces] : pieces;
        const starts = part.map(({ start }) => start);
        const attrs: Attrs["place"] = { axis: node.attrs.axis, starts, onto: whole !== null };
        whole = new Node("place", attrs, inputs, node.shape, node.dtype);
      }
    }
    const placed = this.#one(whole!);
    this.#lowered.set(node, [placed]);
    return placed;
  }

  #fill(value: number, { shape, dtype }: Node): Node {
    return this.#one(build.fill(value, shape, dtype));
  }

  // --- equal nodes are one node

  #id(thing: object): number {
    return getOrCreate(this.#ids, thing, () => this.#ids.size);
  }

  #unify<N extends Node>(node: N): N {
    if (isOp(node, "data") || isOp(node, "scalar")) return node;
    const numbers = [...node.shape];
    const withoutNumbers = (_: string, x: unknown): unknown =>
      typeof x === "number" ? numbers.push(x) && 0 : x;
    const own = isOp(node, "buffer")
      ? this.#id(node.attrs.storage)
      : JSON.stringify(node.attrs, withoutNumbers);
    const key = `${node.op} ${node.dtype} ${node.shape.length} ${node.inputs.map((x) => this.#id(x)).join()} ${own}`;
    const others = getOrCreate(this.#unique, key, () => []);
    const known = others.find((other) => allSame(other.numbers, numbers));
    if (!known) others.push({ node, numbers });
    return (known?.node as N | undefined) ?? node;
  }

  // --- library calls

  #library(node: LibraryNode): readonly Node[] {
    const table = isOp(node, "gather") && this.#packed.get(node.inputs[0]);
    if (table) return [this.#one(gatherRows(table, node.inputs[1]))];
    const narrowed = (packed: boolean): LibraryNode =>
      withInputs(node, node.inputs.map((x, i) => this.#narrow(x, packed && i % 2 === 1))); // prettier-ignore
    const packings = this.#packed.size > 0 ? [true, false] : [false];
    const forms = isOp(node, "matmul") ? packings.map(narrowed) : [node];
    const isEmpty = [node, ...node.inputs].some(({ shape }) => product(shape) === 0);
    const call = forms.find((form) => !isEmpty && isAccelerated(form, this.#given.target));
    if (!call) return this.all(compose(node));
    const unique = this.#unify(call);
    const shapes = resultShapes(call);
    if (shapes.length === 1) return [unique];
    return shapes.map((shape, index) => this.#unify(build.pick(unique, index, shape)));
  }

  /**
   * An operand of a matmul without what widens it to f32, also under movement: a matmul reads f16, bf16 and, as its second factor
   * (with `packed`), quantized weights itself.
   */
  #narrow(node: Node, packed: boolean): Node {
    if (packed && this.#packed.has(node)) return this.#packed.get(node)!;
    if (node.dtype !== "f32") return node;
    const [input] = node.inputs;
    if (isOp(node, "cast")) return input.dtype === "f16" || input.dtype === "bf16" ? input : node;
    const narrow = isMovement(node) ? this.#narrow(input, packed) : input;
    if (narrow === input) return node;
    return this.#unify(
      new Node(node.op, node.attrs, [narrow, ...node.inputs.slice(1)], node.shape, narrow.dtype),
    );
  }
}

function piecesByLength({ inputs, attrs }: Node<"concat">): Iterable<{ piece: Node; start: number }[]> {
  const groups: { piece: Node; start: number }[][] = [];
  const lengthOf = (piece: Node): number => piece.shape[attrs.axis]!;
  let start = 0;
  for (const piece of inputs) {
    const known = groups.find(([first]) => same(lengthOf(first!.piece), lengthOf(piece)));
    if (known) known.push({ piece, start });
    else if (lengthOf(piece) > 0) groups.push([{ piece, start }]);
    start += lengthOf(piece);
  }
  return groups;
}

/** The results of a library call in primitives. */
function compose(node: LibraryNode): readonly Node[] {
  const [a, b] = node.inputs;
  if (isOp(node, "matmul")) return [composeMatmul(a, b)];
  if (isOp(node, "gather")) return [composeGather(a, b)];
  if (isOp(node, "scatterAdd")) return [composeScatterAdd(a, b, node.shape)];
  if (isOp(node, "attention")) return composeAttention(node.inputs, node.attrs);
  const { inputs, attrs } = node as Node<"attentionGrad">;
  return composeAttentionGrad(inputs, attrs).slice(0, 3);
}

// --- operations in primitives

/** Word 0 of Threefry-2x32-20 for the counters (linear index, 0); see `random.ts`. */
function threefry(key0: Node, key1: Node, shape: Shape): Node {
  const u32 = (value: number): Node => build.constant(value, "u32");
  const keys = [key0, key1, build.binary("xor", build.binary("xor", key0, key1), u32(0x1bd11bda))];
  const rotations = [13, 15, 26, 6, 17, 29, 16, 24];
  const counter = build.cast(build.iota([product(shape)], 0), "u32");
  let a = build.add(counter, key0);
  let b = key1;
  for (let round = 0; round < 20; round++) {
    const r = rotations[round % 8]!;
    a = build.add(a, b);
    b = build.binary("or", build.binary("shl", b, u32(r)), build.binary("shr", b, u32(32 - r)));
    b = build.binary("xor", b, a);
    if (round % 4 !== 3) continue;
    const i = (round + 1) / 4;
    a = build.add(a, keys[i % 3]!);
    b = build.add(b, build.add(keys[(i + 1) % 3]!, u32(i)));
  }
  return build.reshape(a, shape);
}

/** Σ over k of products: only for backends without a matmul for it. */
function composeMatmul(a: Node, b: Node): Node {
  const batch = a.shape.slice(0, -2);
  const [m, k, n] = [a.shape.at(-2)!, a.shape.at(-1)!, b.shape.at(-1)!];
  const products = build.mul(build.reshape(a, [...batch, m, k, 1]), build.reshape(b, [...batch, 1, k, n]));
  return build.reshape(build.sum(products, [batch.length + 1]), [...batch, m, n]);
}

/** Σ_r (index = r) table[r], by comparison with every row: only for backends without a gather. */
function composeGather(table: Node, index: Node): Node {
  const [rows, cols] = table.shape as [number, number];
  const count = index.shape[0]!;
  if (table.dtype === "bool") return build.cast(composeGather(build.cast(table, "i32"), index), "bool");
  const wide = build.cast(table, computeType(table.dtype));
  const at = build.reshape(index, [count, 1, 1]);
  const hit = build.binary("eq", build.iota([1, rows, 1], 1), at);
  const zero = build.constant(0, wide.dtype);
  const found = build.sum(build.where(hit, build.reshape(wide, [1, rows, cols]), zero), [1]);
  const column = build.reshape(index, [count, 1]);
  const inside = build.within(column, rows);
  const missing = build.constant(isFloat(wide.dtype) ? NaN : 0, wide.dtype);
  return build.where(inside, build.reshape(found, [count, cols]), missing);
}

/** Σ_i (index_i = r) values[i] for every row r: only for backends without a scatterAdd. */
function composeScatterAdd(index: Node, values: Node, shape: Shape): Node {
  const [rows, cols] = shape as [number, number];
  const count = index.shape[0]!;
  const hit = build.binary("eq", build.reshape(index, [1, count, 1]), build.iota([rows, 1, 1], 0));
  const zero = build.constant(0, values.dtype);
  const added = build.sum(build.where(hit, build.reshape(values, [1, count, cols]), zero), [1]);
  return build.reshape(added, [rows, cols]);
}
