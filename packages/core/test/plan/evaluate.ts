/** Evaluates nodes one element at a time in float64; written independently of the planner, to be compared with it. */
import { type Attrs, type Node, product, roundTo, type Shape, topological } from "@tiedlora/core";

type Values = Float64Array;

const strides = (shape: Shape): number[] => shape.map((_, i) => product(shape.slice(i + 1)));
const unravel = (i: number, shape: Shape): number[] =>
  strides(shape).map((s, axis) => Math.floor(i / s) % shape[axis]!);
const ravel = (index: readonly number[], shape: Shape): number =>
  strides(shape).reduce((sum, s, axis) => sum + s * index[axis]!, 0);

const UNARY: { readonly [op: string]: (x: number) => number } = {
  neg: (x) => -x,
  exp: Math.exp,
  expm1: Math.expm1,
  log: Math.log,
  log1p: Math.log1p,
  sqrt: Math.sqrt,
  rsqrt: (x) => 1 / Math.sqrt(x),
  recip: (x) => 1 / x,
  cos: Math.cos,
  sin: Math.sin,
  tanh: Math.tanh,
  abs: Math.abs,
  floor: Math.floor,
  not: (x) => Number(!x),
};
const BINARY: { readonly [op: string]: (a: number, b: number) => number } = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
  max: Math.max,
  min: Math.min,
  lt: (a, b) => Number(a < b),
  le: (a, b) => Number(a <= b),
  eq: (a, b) => Number(a === b),
  and: (a, b) => a & b,
  or: (a, b) => a | b,
};
const FOLD: { readonly [op: string]: readonly [number, (a: number, b: number) => number] } = {
  reduceSum: [0, (a, b) => a + b],
  reduceProd: [1, (a, b) => a * b],
  reduceMax: [-Infinity, Math.max],
  reduceMin: [Infinity, Math.min],
};

/** The values of `roots`. `memory` gives what device memory holds. */
export function evaluate(roots: readonly Node[], memory: (node: Node<"buffer">) => Values): Values[] {
  const known = new Map<Node, Values>();
  for (const node of topological(roots)) known.set(node, compute(node, known, memory));
  return roots.map((root) => known.get(root)!);
}

function compute(node: Node, known: Map<Node, Values>, memory: (node: Node<"buffer">) => Values): Values {
  const { shape, dtype } = node;
  const x = node.inputs.map((input) => known.get(input)!);
  const from = node.inputs[0]?.shape ?? [];
  const fill = (f: (index: number[], i: number) => number): Values =>
    Float64Array.from({ length: product(shape) }, (_, i) => roundTo(dtype, f(unravel(i, shape), i)));
  const moved = (f: (index: number[]) => readonly number[]): Values =>
    fill((index) => x[0]![ravel(f(index), from)]!);
  switch (node.op) {
    case "buffer":
      return memory(node as Node<"buffer">);
    case "data":
      return Float64Array.from((node.attrs as Attrs["data"]).values);
    case "const":
    case "scalar":
      return fill(() => (node.attrs as Attrs["const"]).value);
    case "iota":
      return fill((index) => index[(node.attrs as Attrs["iota"]).axis]!);
    case "where":
      return fill((_, i) => (x[0]![i]! ? x[1]![i]! : x[2]![i]!));
    case "cast":
      return fill((_, i) => (dtype === "i32" || dtype === "u32" ? Math.trunc(x[0]![i]!) : x[0]![i]!));
    case "after":
    case "reshape":
      return x[0]!;
    case "permute":
      return moved((index) => {
        const out: number[] = [];
        (node.attrs as Attrs["permute"]).order.forEach((axis, i) => (out[axis] = index[i]!));
        return out;
      });
    case "expand":
      return moved((index) =>
        from.map((d, axis) => (d === 1 ? 0 : index[index.length - from.length + axis]!)),
      );
    case "slice":
      return moved((index) => {
        const { ranges } = node.attrs as Attrs["slice"];
        return index.map((i, axis) => ranges[axis]![0] + i * ranges[axis]![2]);
      });
    case "flip":
      return moved((index) =>
        index.map((i, axis) => ((node.attrs as Attrs["flip"]).axes.includes(axis) ? from[axis]! - 1 - i : i)),
      );
    case "pad":
      return fill((index) => {
        const { widths } = node.attrs as Attrs["pad"];
        const at = index.map((i, axis) => i - widths[axis]![0]);
        return at.every((i, axis) => i >= 0 && i < from[axis]!) ? x[0]![ravel(at, from)]! : 0;
      });
    case "concat": {
      const { axis } = node.attrs as Attrs["concat"];
      const pieces = node.inputs.flatMap((input, n) =>
        Array.from({ length: input.shape[axis]! }, (_, start) => ({ n, start, shape: input.shape })),
      );
      return fill((index) => {
        const piece = pieces[index[axis]!]!;
        return x[piece.n]![ravel(index.with(axis, piece.start), piece.shape)]!;
      });
    }
    case "matmul": {
      const k = from.at(-1)!;
      const right = node.inputs[1].shape;
      return fill((index) => {
        const [batch, m, n] = [index.slice(0, -2), index.at(-2)!, index.at(-1)!];
        let sum = 0;
        for (let i = 0; i < k; i++)
          sum += x[0]![ravel([...batch, m, i], from)]! * x[1]![ravel([...batch, i, n], right)]!;
        return sum;
      });
    }
    case "gather": {
      const cols = from[1]!;
      return fill(([i, j]) => {
        const row = x[1]![i!]!;
        return row >= 0 && row < from[0]! ? x[0]![row * cols + j!]! : NaN;
      });
    }
    case "scatterAdd": {
      const cols = shape[1]!;
      return fill(([r, j]) =>
        x[0]!.reduce((sum, row, i) => (row === r ? sum + x[1]![i * cols + j!]! : sum), 0),
      );
    }
    default: // folds and elementwise operations, below
  }
  if (node.op in FOLD) {
    const [start, fold] = FOLD[node.op]!;
    const out = new Float64Array(product(shape)).fill(start);
    x[0]!.forEach((value, i) => {
      const at = ravel(
        unravel(i, from).map((v, axis) => (shape[axis] === 1 ? 0 : v)),
        shape,
      );
      out[at] = fold(out[at]!, value);
    });
    return out;
  }
  const [unary, binary] = [UNARY[node.op], BINARY[node.op]];
  if (unary) return fill((_, i) => unary(x[0]![i]!));
  if (binary) return fill((_, i) => binary(x[0]![i]!, x[1]![i]!));
  throw new Error(`evaluate: ${node.op} is not covered`);
}
