/** Random graphs, made from a list of numbers so that fast-check can shrink them. */
import { type Node, product, type Range, type Shape, Tensor } from "@tiedlora/core";
import * as build from "../../src/build.ts";
import { gradients } from "../../src/grad.ts";

/** Choices read off a list; 0 when it has run out. */
export class Tape {
  /** The lengths of axes, and the most elements of a value. */
  readonly lengths: readonly number[];
  readonly most: number;
  readonly #numbers: readonly number[];
  #at = 0;

  constructor(numbers: readonly number[], lengths: readonly number[] = [1, 2, 3, 4, 6], most = 600) {
    this.#numbers = numbers;
    this.lengths = lengths;
    this.most = most;
  }
  get done(): boolean {
    return this.#at >= this.#numbers.length;
  }
  /** 0 … n-1. */
  below(n: number): number {
    return (this.#numbers[this.#at++] ?? 0) % Math.max(n, 1);
  }
  of<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
}

/** Lengths of a common shape, each possibly 1, the first axes possibly missing: so that most pairs broadcast. */
function randomShape(tape: Tape, common: Shape): number[] {
  const shape = common.map((d) => (tape.below(5) === 0 ? 1 : d));
  return tape.below(3) === 0 ? shape.slice(tape.below(shape.length + 1)) : shape;
}

/** Values in [-2, 2), multiples of 1/8, so that products and small sums are exact. */
function values(tape: Tape, n: number): Float64Array {
  const seed = tape.below(1000);
  return Float64Array.from({ length: n }, (_, i) => ((Math.imul(seed + i + 1, 48271) >>> 7) % 32) / 8 - 2);
}

const leaf = (tape: Tape, common: Shape): Node => {
  const shape = randomShape(tape, common);
  return build.data(values(tape, product(shape)), shape, "f64");
};

/** Another shape with as many elements. */
function reshaped(tape: Tape, shape: Shape): number[] {
  const factors = shape.flatMap((d) => (d === 4 ? [2, 2] : d === 6 ? [2, 3] : d === 1 ? [] : [d]));
  const out: number[] = [];
  for (const f of factors) {
    if (out.length > 0 && (tape.below(2) || out.length === 4)) out[out.length - 1]! *= f;
    else out.push(f);
  }
  if (tape.below(3) === 0) out.splice(tape.below(out.length + 1), 0, 1);
  return out;
}

function fits(a: Shape, b: Shape): boolean {
  for (let i = 1; i <= Math.min(a.length, b.length); i++) {
    const [x, y] = [a.at(-i)!, b.at(-i)!];
    if (x !== y && x !== 1 && y !== 1) return false;
  }
  return true;
}

/** Every way to make a node of one or two others; small results only. */
const MAKERS: readonly ((tape: Tape, x: Node, y: Node) => Node)[] = [
  (tape, x, y) =>
    fits(x.shape, y.shape) ? build.binary(tape.of(["add", "sub", "max", "min"]), x, y) : build.neg(x),
  (_, x, y) => (fits(x.shape, y.shape) ? build.mul(build.unary("tanh", x), y) : build.unary("abs", x)),
  (tape, x) => build.unary(tape.of(["neg", "tanh", "sin", "floor"] as const), x),
  (_, x) => build.unary("exp", build.unary("sin", x)),
  (tape, x) => build.mul(x, build.runtimeScalar(tape.below(5) - 2, "f64")),
  (tape, x) => build.add(x, build.constant(tape.below(3), "f64")),
  (tape, x, y) => {
    const condition = build.binary(tape.of(["lt", "le"] as const), x, build.constant(0.5, "f64"));
    return fits(x.shape, y.shape) ? build.where(condition, x, y) : build.where(condition, x, build.neg(x));
  },
  (tape, x) => {
    const axes = x.shape.flatMap((_, axis) => (tape.below(2) ? [axis] : []));
    return build.reduce(tape.of(["reduceSum", "reduceMax", "reduceMin", "reduceSum"] as const), x, axes);
  },
  (tape, x) => {
    const axes = x.shape.flatMap((_, axis) => (tape.below(2) ? [axis] : []));
    return build.sub(x, build.reduce("reduceMax", x, axes)); // the beginning of a softmax
  },
  (_, x) => build.reshape(x, [product(x.shape)]),
  (tape, x) => build.reshape(x, reshaped(tape, x.shape)),
  (tape, x) => build.permute(x, shuffled(tape, x.shape.length)),
  (tape, x) => build.reshape(build.permute(x, shuffled(tape, x.shape.length)), reshaped(tape, x.shape)),
  (tape, x) => {
    const ranges = x.shape.map((d): Range => {
      const start = tape.below(Math.min(d, 4));
      return [start, d - tape.below(Math.min(d - start, 4)), 1 + tape.below(2)];
    });
    return build.slice(x, ranges);
  },
  (tape, x) => {
    const widths = x.shape.map((): [number, number] => [tape.below(3), tape.below(2)]);
    return product(x.shape) < tape.most / 3 ? build.pad(x, widths) : x;
  },
  (tape, x) =>
    build.flip(
      x,
      x.shape.flatMap((_, axis) => (tape.below(2) ? [axis] : [])),
    ),
  (tape, x) => {
    const shape = x.shape.map((d) => (d === 1 ? tape.of(tape.lengths) : d));
    return product(shape) < tape.most ? build.broadcastTo(x, tape.below(2) ? [2, ...shape] : shape) : x;
  },
  (_, x, y) => {
    const [a, b] = [x.shape, y.shape];
    if (a.length < 2 || b.length < 2 || a.at(-1) !== b.at(-2) || !fits(a.slice(0, -2), b.slice(0, -2)))
      return x;
    return build.matmul(build.unary("tanh", x), build.unary("tanh", y));
  },
  (tape, x) =>
    x.shape.length < 2 || product(x.shape) > tape.most / 3
      ? x
      : build.matmul(build.swapLast(x), build.unary("tanh", x)),
  (tape, x) => {
    if (x.shape.length !== 2) return x;
    const index = build.data(
      Int32Array.from({ length: 5 }, () => tape.below(x.shape[0]!)),
      [5],
      "i32",
    );
    return tape.below(2)
      ? build.gather(x, index)
      : build.scatterAdd(index, build.gather(x, index), x.shape[0]!);
  },
  // The gradient of a cast from half precision is f32, which the reference keeps in more precision while it is fused.
  (tape, x) =>
    build.marked(build.cast(build.cast(x, tape.of(["f16", "bf16", "i32", "bool"] as const)), "f64"), "stop"),
  (tape, x) =>
    x.shape.length === 0
      ? x
      : build.mul(x, build.cast(build.iota(x.shape, tape.below(x.shape.length)), "f64")),
  (_, x, y) => build.after(x, y),
  (tape, x) =>
    x.shape.length === 0 ? x : new Tensor(x, null).sin().softmax(tape.below(x.shape.length)).node,
  (tape, x) => {
    if (x.shape.length === 0) return x;
    const axis = tape.of([x.shape.length - 1, x.shape.length - 1, tape.below(x.shape.length)]);
    const spread = build.unary("rsqrt", new Tensor(x, null).variance(axis, { keepdims: true }).add(0.5).node);
    return build.mul(build.sub(x, build.sum(x, [axis])), spread); // much like a norm
  },
];

function shuffled(tape: Tape, n: number): number[] {
  const order = Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = tape.below(i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

/** A graph over `leaves` and fresh ones: some of its nodes, as roots. */
export function randomGraph(tape: Tape, leaves: readonly Node[] = []): Node[] {
  const common = Array.from({ length: 1 + tape.below(4) }, () => tape.of(tape.lengths));
  const pool = [...leaves, leaf(tape, common), leaf(tape, common), leaf(tape, common)];
  while (!tape.done && pool.length < 40) {
    const x = tape.below(2) ? pool.at(-1)! : tape.of(pool);
    const made = tape.of(MAKERS)(tape, x, tape.of(pool));
    if (product(made.shape) <= tape.most) pool.push(made);
  }
  const roots = pool.slice(-1 - tape.below(3));
  if (tape.below(2)) roots.push(tape.of(pool));
  if (tape.below(2)) return roots;
  const last = pool.at(-1)!;
  const targets = [pool[0]!, tape.of(pool)];
  const all = last.shape.map((_, axis) => axis);
  const loss = build.reshape(build.sum(last, all), []);
  const found = gradients([[loss, build.fill(1, [], loss.dtype)]], targets);
  return [...roots, ...found.filter((g) => g !== null)];
}
