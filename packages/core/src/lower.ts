/**
 * Lowering: the user's graph becomes one of nodes that kernels can be made of. Equal nodes become one; what is empty is no
 * work; random bits and the library calls that the backend lacks become elementwise nodes and reductions.
 */
import { computeType, type DType, type LibraryCall } from "@tiedlora/kernels";
import * as build from "./build.ts";
import { type Attrs, isOp, isReduction, Node, type Shape, topological, withInputs } from "./node.ts";
import { isLibrary, type LibraryNode } from "./emit/kinds.ts";
import { plainCall } from "./emit/library.ts";
import { composeAttention, composeAttentionGrad } from "./ops/attention.ts";
import { product, sameShape } from "./shape.ts";
import { isMovement } from "./views.ts";

export interface Lowered {
  /** What became of the roots, in their order. */
  readonly roots: readonly Node[];
  /** What became of all nodes of the graph: without the insides of what was composed. */
  readonly nodes: ReadonlySet<Node>;
}

/** Lowers the graph of `roots`. `slots` are the numbers of the scalars that are given at run time. */
export function lower(
  roots: readonly Node[],
  accelerates: (call: LibraryCall) => boolean,
  slots: ReadonlyMap<Node, number>,
): Lowered {
  const lowering = new Lowering(accelerates, slots);
  const order = topological(roots);
  return { nodes: new Set(lowering.all(order)), roots: lowering.all(roots) };
}

class Lowering {
  readonly #accelerates: (call: LibraryCall) => boolean;
  readonly #slots: ReadonlyMap<Node, number>;
  readonly #lowered = new Map<Node, Node>();
  /** The results of lowered nodes that have several. */
  readonly #results = new Map<Node, readonly Node[]>();
  readonly #unique = new Map<string, Node>();
  readonly #ids = new Map<object, number>();

  constructor(accelerates: (call: LibraryCall) => boolean, slots: ReadonlyMap<Node, number>) {
    this.#accelerates = accelerates;
    this.#slots = slots;
  }

  /** The lowered forms of nodes, whose inputs may be lowered already. */
  all(nodes: readonly Node[]): Node[] {
    for (const node of topological(nodes, (n) => (this.#lowered.has(n) ? [] : n.inputs))) {
      if (this.#lowered.has(node)) continue;
      const result = this.#lower(node);
      this.#lowered.set(node, result);
      this.#lowered.set(result, result);
    }
    return nodes.map((node) => this.#single(this.#lowered.get(node)!));
  }

  #one(node: Node): Node {
    return this.all([node])[0]!;
  }

  #lower(node: Node): Node {
    if (isOp(node, "pick")) return this.#pick(node);
    const inputs = node.inputs.map((input) => this.#single(this.#lowered.get(input)!));
    if (product(node.shape) === 0)
      return this.#unify(new Node("const", { value: 0 }, [], node.shape, node.dtype));
    if (isReduction(node)) return this.#reduction(node, inputs[0]!);
    if (isMovement(node)) return this.#movement(node, inputs);
    if (isOp(node, "scalar") && !this.#slots.has(node))
      return this.#unify(build.constant(node.attrs.value, node.dtype));
    if (isOp(node, "randomBits")) return this.#one(threefry(inputs[0]!, inputs[1]!, node.shape));
    if (isLibrary(node)) return this.#library(node, inputs);
    return this.#unify(withInputs(node, inputs));
  }

  // --- equal nodes are one node

  #id(thing: object): number {
    let id = this.#ids.get(thing);
    if (id === undefined) this.#ids.set(thing, (id = this.#ids.size));
    return id;
  }

  #unify(node: Node): Node {
    if (isOp(node, "data") || isOp(node, "scalar")) return node;
    const own = isOp(node, "buffer")
      ? this.#id(node.attrs.storage)
      : JSON.stringify(node.attrs, exactNumbers);
    const key = `${node.op} ${node.dtype} ${node.shape.join()} ${node.inputs.map((x) => this.#id(x)).join()} ${own}`;
    const known = this.#unique.get(key);
    if (known) return known;
    this.#unique.set(key, node);
    return node;
  }

  // --- nodes with several results

  #single(node: Node): Node {
    const results = this.#results.get(node);
    if (results) return results[0]!;
    return isOp(node, "attention") || isOp(node, "attentionGrad")
      ? this.#unify(build.pick(node, 0, node.shape))
      : node;
  }

  #pick(node: Node<"pick">): Node {
    const source = this.#lowered.get(node.inputs[0]!)!;
    const results = this.#results.get(source);
    return results ? results[node.attrs.index]! : this.#unify(withInputs(node, [source]));
  }

  // --- empty and uniform values are no work

  #fill(value: number, shape: Shape, dtype: DType): Node {
    return this.#one(build.fill(value, shape, dtype));
  }

  #reduction(node: Node, input: Node): Node {
    if (product(input.shape) === 0) return this.#fill(identityOf(node), node.shape, node.dtype);
    if (sameShape(input.shape, node.shape)) return input;
    return this.#unify(withInputs(node, [input]));
  }

  #movement(node: Node, inputs: readonly Node[]): Node {
    const [input] = inputs as [Node];
    if (isOp(node, "pad"))
      return product(input.shape) === 0
        ? this.#fill(0, node.shape, node.dtype)
        : this.#unify(withInputs(node, inputs));
    if (isOp(node, "reshape")) {
      if (sameShape(node.shape, input.shape)) return input;
      if (isOp(input, "reshape")) return this.#movement(node, input.inputs);
    }
    return this.#unify(withInputs(node, inputs));
  }

  // --- library calls

  #library(node: LibraryNode, inputs: readonly Node[]): Node {
    if (inputs.some((input) => product(input.shape) === 0)) return this.#empty(node, inputs);
    const operands = node.op === "matmul" ? inputs.map((input) => this.#halfPrecision(input)) : inputs;
    const call = withInputs(node, operands) as LibraryNode;
    if (this.#accelerates(plainCall(call))) return this.#unify(call);
    const results = this.#compose(withInputs(node, inputs) as LibraryNode);
    if (results.length > 1) this.#results.set(results[0]!, results);
    return results[0]!;
  }

  #empty(node: LibraryNode, inputs: readonly Node[]): Node {
    if (node.op === "matmul" || node.op === "scatterAdd") return this.#fill(0, node.shape, node.dtype);
    if (node.op === "gather")
      return this.#fill(node.dtype === "f32" || node.dtype === "f64" ? NaN : 0, node.shape, node.dtype);
    const results = this.#compose(withInputs(node, inputs) as LibraryNode);
    this.#results.set(results[0]!, results);
    return results[0]!;
  }

  /** A matmul reads f16 and bf16 itself: a cast of them to f32, also under movement, is left out. */
  #halfPrecision(node: Node): Node {
    if (isOp(node, "cast") && node.dtype === "f32") {
      const [from] = node.inputs as [Node];
      return from.dtype === "f16" || from.dtype === "bf16" ? from : node;
    }
    if (!isMovement(node) || node.dtype !== "f32") return node;
    const input = this.#halfPrecision(node.inputs[0]!);
    if (input === node.inputs[0]) return node;
    return this.#unify(
      new Node(node.op, node.attrs, [input, ...node.inputs.slice(1)], node.shape, input.dtype),
    );
  }

  #compose(node: LibraryNode): Node[] {
    const { inputs } = node;
    switch (node.op) {
      case "matmul":
        return [this.#one(composeMatmul(inputs[0]!, inputs[1]!))];
      case "attention":
        return this.all(composeAttention(inputs, node.attrs as Attrs["attention"]));
      case "attentionGrad": {
        const [dQ, dK, dV] = composeAttentionGrad(
          inputs.slice(0, -3),
          inputs.at(-1)!,
          node.attrs as Attrs["attentionGrad"],
        );
        return this.all([dQ, dK, dV]);
      }
      case "gather":
        return [this.#one(composeGather(inputs[0]!, inputs[1]!))];
      case "scatterAdd":
        return [this.#one(composeScatterAdd(inputs[0]!, inputs[1]!, node.shape))];
    }
  }
}

function exactNumbers(_: string, value: unknown): unknown {
  if (typeof value !== "number") return value;
  return Object.is(value, -0) || !Number.isFinite(value) ? `${Object.is(value, -0) ? "-0" : value}` : value;
}

/** What a reduction over nothing gives. */
function identityOf(node: Node): number {
  const smallest = node.dtype === "i32" ? -(2 ** 31) : node.dtype === "u32" ? 0 : -Infinity;
  const largest = node.dtype === "i32" ? 2 ** 31 - 1 : node.dtype === "u32" ? 2 ** 32 - 1 : Infinity;
  if (node.op === "reduceMax") return smallest;
  if (node.op === "reduceMin") return largest;
  return node.op === "reduceProd" ? 1 : 0;
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
  const inside = build.binary(
    "and",
    build.binary("le", build.constant(0, "i32"), column),
    build.binary("lt", column, build.constant(rows, "i32")),
  );
  const missing = build.constant(wide.dtype === "f32" || wide.dtype === "f64" ? NaN : 0, wide.dtype);
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
