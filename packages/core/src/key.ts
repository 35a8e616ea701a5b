/**
 * The structural key of a graph: integers that are equal for two graphs exactly when one program computes both. Operations,
 * attributes, shapes and types are in it, and which leaf is used where; the numbers in scalars and memory are not.
 */
import type { DType } from "./dtype.ts";
import type { Attrs, Node, Op, Storage } from "./node.ts";

/** A graph, read once: its key, and what a program for it has to be given. */
export interface Trace {
  readonly hash: number;
  /** Valid until the next trace; copy it to keep it. */
  readonly signature: Int32Array;
  readonly storages: readonly Storage[];
  readonly data: readonly Node<"data">[];
  readonly scalars: readonly Node<"scalar">[];
}

/** Writes an operation's attributes into the key. */
type Encode<K extends Op> = (attrs: Attrs[K], w: Writer) => void;
const none = (): void => {};
const axes = (a: { readonly axes: readonly number[] }, w: Writer): void => w.list(a.axes);
const attention = (a: Attrs["attention"], w: Writer): void => {
  w.int(a.causal ? 1 : 0);
  w.number(a.scale);
};

const ENCODE: { readonly [K in Op]: Encode<K> } = {
  buffer: ({ storage }, w) => w.int(w.storage(storage)),
  data: none,
  const: ({ value }, w) => w.number(value),
  scalar: none,
  iota: ({ axis }, w) => w.int(axis),
  randomBits: none,
  neg: none,
  exp: none,
  log: none,
  sqrt: none,
  rsqrt: none,
  recip: none,
  sin: none,
  cos: none,
  tanh: none,
  erf: none,
  floor: none,
  abs: none,
  not: none,
  add: none,
  sub: none,
  mul: none,
  div: none,
  mod: none,
  max: none,
  min: none,
  lt: none,
  le: none,
  eq: none,
  and: none,
  or: none,
  xor: none,
  shl: none,
  shr: none,
  where: none,
  cast: none, // the target is the node's type
  reduceSum: axes,
  reduceProd: axes,
  reduceMax: axes,
  reduceMin: axes,
  reshape: none,
  permute: ({ order }, w) => w.list(order),
  expand: none,
  slice: ({ ranges }, w) => {
    for (const range of ranges) w.list(range);
  },
  pad: ({ widths }, w) => {
    for (const width of widths) w.list(width);
  },
  flip: axes,
  matmul: none,
  attention,
  attentionGrad: attention,
  pick: ({ index }, w) => w.int(index),
  gather: none,
  scatterAdd: none,
  after: none,
};

const OPS = Object.keys(ENCODE) as Op[];
const CODE = Object.fromEntries(OPS.map((op, code) => [op, code])) as { readonly [K in Op]: number };
const TYPE: { readonly [D in DType]: number } = { f32: 0, f16: 1, bf16: 2, f64: 3, i32: 4, u32: 5, bool: 6 };

const float = new Float64Array(1);
const halves = new Int32Array(float.buffer);

class Writer {
  ints: Int32Array = new Int32Array(1 << 16);
  length = 0;
  storages: Storage[] = [];
  readonly #numbers = new Map<Storage, number>();

  int(value: number): void {
    if (this.length === this.ints.length) {
      const larger = new Int32Array(2 * this.length);
      larger.set(this.ints);
      this.ints = larger;
    }
    this.ints[this.length++] = value;
  }

  number(value: number): void {
    float[0] = value;
    this.int(halves[0]!);
    this.int(halves[1]!);
  }

  list(values: readonly number[]): void {
    this.int(values.length);
    for (let i = 0; i < values.length; i++) this.int(values[i]!);
  }

  storage(storage: Storage): number {
    let number = this.#numbers.get(storage);
    if (number === undefined) {
      this.#numbers.set(storage, (number = this.storages.length));
      this.storages.push(storage);
    }
    return number;
  }

  reset(): void {
    this.length = 0;
    this.storages = [];
    this.#numbers.clear();
  }
}

const writer = new Writer(); // reused, so that a trace allocates little

/** Reads the graph of `roots` and of the values that updates store. */
export function trace(
  roots: readonly Node[],
  updates: readonly { readonly storage: Storage; readonly value: Node }[],
): Trace {
  const w = writer;
  w.reset();
  const data: Node<"data">[] = [];
  const scalars: Node<"scalar">[] = [];
  const position = new Map<Node, number>();
  const stack: Node[] = [];
  const next: number[] = []; // for each node on the stack, the input to visit next

  const visit = (root: Node): number => {
    const known = position.get(root);
    if (known !== undefined) return known;
    stack.push(root);
    next.push(0);
    while (stack.length > 0) {
      const top = stack.length - 1;
      const node = stack[top]!;
      const i = next[top]!;
      if (i < node.inputs.length) {
        next[top] = i + 1;
        const input = node.inputs[i]!;
        if (!position.has(input)) {
          stack.push(input);
          next.push(0);
        }
        continue;
      }
      stack.pop();
      next.pop();
      if (position.has(node)) continue;
      write(node);
      position.set(node, position.size);
    }
    return position.get(root)!;
  };

  const write = (node: Node): void => {
    const { op, inputs, shape } = node;
    w.int((CODE[op] << 3) | TYPE[node.dtype]);
    w.list(shape);
    w.int(inputs.length);
    for (let i = 0; i < inputs.length; i++) w.int(position.get(inputs[i]!)!);
    (ENCODE[op] as Encode<Op>)(node.attrs, w);
    if (op === "buffer") checkVersion((node as Node<"buffer">).attrs);
    else if (op === "data") data.push(node as Node<"data">);
    else if (op === "scalar") scalars.push(node as Node<"scalar">);
  };

  const results = roots.map(visit);
  for (const { storage, value } of updates) results.push(visit(value), w.storage(storage));
  w.list(results);
  w.int(roots.length);
  const signature = w.ints.subarray(0, w.length);
  return { hash: hash(signature), signature, storages: w.storages, data, scalars };
}

function checkVersion({ storage, version }: Attrs["buffer"]): void {
  if (storage.version !== version) {
    throw new Error(
      `${storage.name} has been updated since a tensor was built on its value (version ${version}, now ${storage.version}); ` +
        `read the tensor before the update, or build it again after`,
    );
  }
}

/** FNV-1a over 32-bit words. */
function hash(ints: Int32Array): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < ints.length; i++) h = Math.imul(h ^ ints[i]!, 0x01000193);
  return h;
}
