/** The graph: immutable nodes, each one operation with static attributes. Tensors are handles on nodes. */
import type { BinaryOp, DType, Moving, Quantization, ReduceOp, TypedArray, UnaryOp } from "@tiedlora/kernels";
import { BYTES, product } from "@tiedlora/kernels";
import type { StorageVersion } from "./storage.ts";

/** Lengths of the axes, the slowest first; [] is a single number. */
export type Shape = readonly number[];
/** Per axis `[start, stop, step]` with step >= 1. */
export type Range = readonly [start: number, stop: number, step: number];
/** Per axis, the run-time numbers that are added to the start. */
export type Moves = readonly (readonly Moving[])[];
type PlaceAttrs = { axis: number; starts: readonly number[]; onto: boolean; moving?: readonly Moving[] };

interface None {}
/** The attributes of operations that have none. */
export const NONE: None = {};

/** Activations, each with its derivatives of any order. */
export type ActivationOp = "sigmoid" | "silu" | "gelu" | "geluTanh" | "softplus";

/** Every primitive operation and its static attributes. Tables elsewhere are exhaustive over these keys. */
export type Attrs = { readonly [K in UnaryOp | BinaryOp]: None } & {
  readonly [K in ActivationOp]: { readonly order: number };
} & {
  // --- leaves
  /** Device memory as it was at `version`. */
  readonly buffer: StorageVersion;
  /** Host memory, uploaded when a program needs it. */
  readonly data: { readonly values: TypedArray };
  /** A number that is part of the program. Shape []. */
  readonly const: { readonly value: number };
  /** A number handed to the program at run time. Shape []. */
  readonly scalar: { readonly value: number };
  /** The i32 index along `axis`. */
  readonly iota: { readonly axis: number };
  /** Uniform u32 bits: one word of Threefry-2x32-20 per element, counter = linear index; inputs: two u32 keys, shape []. */
  readonly randomBits: None;

  // --- elementwise (UnaryOp and BinaryOp above): operands of one shape
  readonly where: None;
  /** x to the power y, floats: lowered to the operations above, like activations. */
  readonly pow: None;
  readonly cast: { readonly to: DType };

  /** The numbers [..., out, in] of a quantized weight. inputs: its words, scales, [biases]. A matmul reads these in place. */
  readonly dequantize: Quantization;

  // --- reductions over `axes` (ascending), which are kept with length 1
  readonly reduceSum: { readonly axes: readonly number[] };
  readonly reduceProd: { readonly axes: readonly number[] };
  readonly reduceMax: { readonly axes: readonly number[] };
  readonly reduceMin: { readonly axes: readonly number[] };

  // --- movement: the same elements, arranged differently
  readonly reshape: None;
  /** Output axis i is input axis order[i]. */
  readonly permute: { readonly order: readonly number[] };
  /** Axes of length 1 become any length, and axes are added in front. */
  readonly expand: None;
  /** `moving` is set only while a program is compiled in which starts vary. */
  readonly slice: { readonly ranges: readonly Range[]; readonly moving?: Moves };
  /** Adds zeros around: per axis [before, after]. */
  readonly pad: { readonly widths: readonly (readonly [number, number])[] };
  readonly flip: { readonly axes: readonly number[] };

  // --- joining
  /** The inputs one after another along `axis`. */
  readonly concat: { readonly axis: number };
  /** Inputs of one shape, each written at its start, as a concat is lowered; `onto`: into the first input, which has the rest. */
  readonly place: PlaceAttrs;

  // --- library: hand-tuned on most backends, lowered to the operations above on others
  /** inputs: A [...batch, m, k], B [...batch, k, n] of equal batch. */
  readonly matmul: None;
  /** inputs: Q, K, V, [bias]; results (by `pick`): O, L. */
  readonly attention: { readonly causal: boolean; readonly scale: number };
  /** inputs: Q, K, V, [bias,] O, L, dO; results (by `pick`): dQ, dK, dV. */
  readonly attentionGrad: { readonly causal: boolean; readonly scale: number };
  /** Result `index` of a node with several results; with an `order`, stored so that axis i is the result's axis order[i]. */
  readonly pick: { readonly index: number; readonly order?: readonly number[] };
  /** inputs: table [rows, cols], index [count] (i32). */
  readonly gather: None;
  /** inputs: index [count] (i32), values [count, cols]; result [rows, cols]. */
  readonly scatterAdd: None;

  // --- structure
  /** The first input, computed only after the second: keeps a recomputation (checkpoint) late. */
  readonly after: None;
};

/** The name of an operation. */
export type Op = keyof Attrs;

/** At least the inputs in T, which need no check when indexed; indexing a missing further input gives undefined. */
type List<T extends readonly Node[]> = T & readonly Node[];
type LeafOp = "buffer" | "data" | "const" | "scalar" | "iota";
type PairOp = BinaryOp | "pow" | "randomBits" | "after" | "gather" | "scatterAdd";
type ListedOp =
  LeafOp | PairOp | "where" | "concat" | "place" | "dequantize" | "matmul" | "attention" | "attentionGrad";

/** The inputs of each operation; `Attrs`, above, describes them. */
export type Inputs = { readonly [K in Exclude<Op, ListedOp>]: List<readonly [x: Node]> } & {
  readonly [K in PairOp]: List<readonly [a: Node, b: Node]>;
} & {
  readonly [K in LeafOp | "concat"]: readonly Node[];
} & {
  readonly where: List<readonly [condition: Node, a: Node, b: Node]>;
  readonly place: List<readonly [Node, ...Node[]]>;
  readonly dequantize: List<readonly [words: Node, scales: Node, ...biases: Node[]]>;
  readonly matmul: List<readonly [a: Node, b: Node, ...more: Node[]]>;
  readonly attention: List<readonly [q: Node, k: Node, v: Node, ...bias: Node[]]>;
  readonly attentionGrad: List<readonly [q: Node, k: Node, v: Node, ...rest: Node[]]>;
};

/** The reduction operations and the operators that they fold with. */
export const REDUCE_KIND: {
  readonly [K in "reduceSum" | "reduceProd" | "reduceMax" | "reduceMin"]: ReduceOp;
} = { reduceSum: "sum", reduceProd: "prod", reduceMax: "max", reduceMin: "min" };

export function isReduction(node: Node): node is Node<keyof typeof REDUCE_KIND> {
  return node.op in REDUCE_KIND;
}

/** How a checkpointed value can be computed again in the backward pass, from its inputs. */
export interface Replay {
  readonly inputs: readonly Node[];
  readonly run: (inputs: readonly Node[]) => Node;
  /** `updatesSoFar` when the value was first computed: memory updated since then would give another value. */
  readonly made: number;
}

/** A gradient rule given by the user: maps g = dL/dy to dL/dx for each input, or null where there is none. */
export interface Custom {
  readonly inputs: readonly Node[];
  readonly vjp: (g: Node) => readonly (Node | null)[];
}

let made = 0;

/** One operation. `shape` and `dtype` are those of its result (of result 0, where there are several). */
export class Node<K extends Op = Op> {
  /** How many nodes were made before: inputs come before users. */
  readonly serial: number = made++;
  readonly op: K;
  readonly attrs: Attrs[K];
  readonly inputs: Inputs[K];
  readonly shape: Shape;
  readonly dtype: DType;
  /** "stop": no gradient passes (detach). A Replay: the gradient recomputes the value (checkpoint). Custom: a rule of its own. */
  gradient: "stop" | Replay | Custom | null = null;
  /** The number of the last graph walk that reached this node, and the node's position in that walk's order. */
  walk = 0;
  position = 0;
  /** Once its value has been computed, a node turns into a leaf; this is the node before that, for differentiation. */
  origin: Node | null = null;

  constructor(op: K, attrs: Attrs[K], inputs: Inputs[K], shape: Shape, dtype: DType) {
    this.op = op;
    this.attrs = attrs;
    this.inputs = inputs;
    this.shape = shape;
    this.dtype = dtype;
  }
}

/** The size of a node's value in memory. */
export const bytesOf = ({ shape, dtype }: Node): number => product(shape) * BYTES[dtype];

/** Turns `node` into a leaf that holds its computed value. Its gradient is still that of its origin. */
export function settle(node: Node, leaf: Node<"buffer"> | Node<"data">): void {
  const mutable = node as { -readonly [F in "op" | "attrs" | "inputs" | "origin"]: Node[F] };
  mutable.origin ??=
    node.inputs.length > 0 ? new Node(node.op, node.attrs, node.inputs, node.shape, node.dtype) : null;
  mutable.op = leaf.op;
  mutable.attrs = leaf.attrs;
  mutable.inputs = [];
}

/** The same operation on other inputs of the same shapes. */
export function withInputs<K extends Op>(node: Node<K>, inputs: readonly Node[]): Node<K> {
  if (inputs.every((input, i) => input === node.inputs[i])) return node;
  return new Node(node.op, node.attrs, inputs as Inputs[K], node.shape, node.dtype);
}

/** Narrows a node by its operation. */
export function isOp<K extends Op>(node: Node, op: K): node is Node<K> {
  return node.op === op;
}

/** Walks so far: each node stores the last walk that reached it, since a set of nodes would cost more than the walk. */
let walks = 0;
export const nextWalk = (): number => ++walks;

/** All nodes that `roots` need, inputs before users, each once. Iterative: graphs are deep. */
export function topological(roots: readonly Node[], edges?: (node: Node) => readonly Node[]): Node[] {
  const order: Node[] = [];
  const walk = nextWalk();
  const stack = [...roots].reverse();
  while (stack.length > 0) {
    const node = stack[stack.length - 1]!;
    const height = stack.length;
    if (node.walk !== walk) {
      const inputs = edges ? edges(node) : node.inputs;
      for (let i = inputs.length - 1; i >= 0; i--) if (inputs[i]!.walk !== walk) stack.push(inputs[i]!);
      if (stack.length > height) continue;
      node.walk = walk;
      node.position = order.push(node) - 1;
    }
    stack.pop();
  }
  return order;
}

/** Numbers the nodes of an order as its `walk` did, if there were others since. Returns the number of the last walk. */
export function renumbered(order: readonly Node[], walk: number): number {
  if (walk === walks) return walk;
  const own = nextWalk();
  for (const [position, node] of order.entries()) Object.assign(node, { walk: own, position });
  return own;
}
