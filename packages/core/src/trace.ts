/** The key of a graph: integers that are equal for two graphs exactly when one program computes both. It omits run-time numbers. */
import type { DType } from "@tiedlora/kernels";
import { hashOf, hashOfSizes, wordsOf } from "@tiedlora/kernels/hashes";
import { isOp, type Node, NONE, type Op, type Shape, topological } from "./graph.ts";
import { sameShape } from "./shape.ts";
import { checkCurrent, type Storage } from "./storage.ts";

/** The key of a graph, and the leaves and run-time numbers that its program is given. */
export interface Trace {
  readonly hash: number;
  /** The structure of the graph, and its sizes: lengths of axes, and constants. Both are valid until the next trace; copy them to keep them. */
  readonly structure: Int32Array;
  readonly sizes: Float64Array;
  readonly storages: readonly Storage[];
  readonly data: readonly Node<"data">[];
  readonly scalars: readonly Node<"scalar">[];
  /** Slices and paddings; `starts` has, per axis of each in turn, where a slice starts or the width after a padded value. */
  readonly windows: readonly Node[];
  readonly starts: readonly number[];
  /** The starts that are given at run time from the first program on: those of placements. */
  readonly free: ReadonlySet<number>;
}

/** The number of each operation that was traced: a hash of its name, so that a graph has the same key in every process. */
const CODES = new Map<Op, number>();

export function codeOf(op: Op): number {
  let code = CODES.get(op);
  if (code === undefined)
    CODES.set(op, (code = hashOf(Int32Array.from(op, (c) => c.charCodeAt(0))) & 0x7fffff));
  return code;
}

const TYPE: { readonly [D in DType]: number } = { f32: 0, f16: 1, bf16: 2, f64: 3, i32: 4, u32: 5, bool: 6 };

const float = new Float64Array(1);
const halves = new Int32Array(float.buffer);

/** A larger array, with the numbers of the one that is full. */
function grown<A extends Int32Array | Float64Array>(full: A, larger: A): A {
  larger.set(full);
  return larger;
}

class Writer {
  ints: Int32Array = new Int32Array(1 << 16);
  length = 0;
  sizes: Float64Array = new Float64Array(1 << 12);
  count = 0;
  storages: Storage[] = [];
  /** The number of this trace, from 1 on: each storage stores the last one that reached it, as nodes do with walks. */
  #trace = 0;

  int(value: number): void {
    if (this.length === this.ints.length) this.ints = grown(this.ints, new Int32Array(2 * this.length));
    this.ints[this.length++] = value;
  }

  size(value: number): void {
    if (this.count === this.sizes.length) this.sizes = grown(this.sizes, new Float64Array(2 * this.count));
    this.sizes[this.count++] = value;
  }

  shape(lengths: Shape): void {
    this.int(lengths.length);
    for (let i = 0; i < lengths.length; i++) this.size(lengths[i]!);
  }

  /** Writes an attribute: a number, a boolean, a word, or nested arrays of these. Builders set an operation's attributes in one order. */
  attribute(value: unknown): void {
    if (Array.isArray(value)) {
      this.int(value.length);
      for (const item of value) this.attribute(item);
    } else if (typeof value === "string") this.list(Array.from(value, (letter) => letter.charCodeAt(0)));
    else {
      float[0] = Number(value);
      this.int(halves[0]!);
      this.int(halves[1]!);
    }
  }

  list(values: readonly number[]): void {
    this.int(values.length);
    for (let i = 0; i < values.length; i++) this.int(values[i]!);
  }

  storage(storage: Storage): number {
    if (storage.walk !== this.#trace) {
      storage.walk = this.#trace;
      storage.position = this.storages.push(storage) - 1;
    }
    return storage.position;
  }

  reset(): void {
    this.length = 0;
    this.count = 0;
    this.storages = [];
    this.#trace++;
  }
}

const writer = new Writer(); // reused, so that a trace allocates little

/** Traces the graph of `roots` and of the values that `updates` store. */
export function trace(
  roots: readonly Node[],
  updates: readonly { readonly storage: Storage; readonly value: Node }[],
): Trace {
  const w = writer;
  w.reset();
  const data: Node<"data">[] = [];
  const scalars: Node<"scalar">[] = [];
  const windows: Node[] = [];
  const starts: number[] = [];
  const free = new Set<number>();
  const order = topological([...roots, ...updates.map(({ value }) => value)]);
  for (const node of order) {
    const { op, dtype, shape, inputs } = node;
    const isLike = inputs.length > 0 && sameShape(inputs[0].shape, shape);
    w.int((codeOf(op) << 9) | (Math.min(inputs.length, 31) << 4) | (TYPE[dtype] << 1) | Number(isLike));
    if (inputs.length >= 31) w.int(inputs.length);
    if (!isLike) w.shape(shape);
    for (const input of inputs) w.int(input.position);
    if (isOp(node, "buffer")) {
      checkCurrent(node.attrs);
      w.int(w.storage(node.attrs.storage));
    } else if (isOp(node, "data")) data.push(node);
    else if (isOp(node, "scalar")) scalars.push(node);
    else if (isOp(node, "const")) w.size(node.attrs.value);
    else if (node.attrs === NONE) continue;
    else if (isOp(node, "slice")) {
      windows.push(node);
      for (const [start, , step] of node.attrs.ranges) {
        starts.push(start);
        w.int(step);
      }
    } else if (isOp(node, "pad")) {
      windows.push(node);
      for (const [, after] of node.attrs.widths) starts.push(after);
    } else if (isOp(node, "place")) {
      windows.push(node);
      w.int(node.attrs.axis);
      free.add(starts.length + node.attrs.axis);
      starts.push(...node.shape.map((_, axis) => (axis === node.attrs.axis ? node.attrs.starts[0]! : 0)));
    } else for (const name in node.attrs) w.attribute(node.attrs[name as keyof Node["attrs"]]);
  }
  for (const root of roots) w.int(root.position);
  for (const { storage, value } of updates) {
    w.int(value.position);
    w.int(w.storage(storage));
  }
  w.int(updates.length);
  w.int(roots.length);
  const structure = w.ints.subarray(0, w.length);
  const sizes = w.sizes.subarray(0, w.count);
  const hash = hashOfSizes(wordsOf(sizes), hashOf(structure));
  return { hash, structure, sizes, storages: w.storages, data, scalars, windows, starts, free };
}
