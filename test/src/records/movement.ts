/** Records of operations that only move elements. */
import { concat, stack, type DType, type Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import fc from "fast-check";
import { permutation } from "../generate/views.ts";
import type { OpCase, OpRecord } from "./record.ts";
import { axesOf, shapes, type ShapeOptions } from "./shapes.ts";

const ALL: readonly DType[] = ["f32", "f16", "bf16", "i32", "u32"];

/** An operation whose arguments follow from the shape and a few numbers. */
function movement(
  name: string,
  decode: (
    shape: number[],
    genes: readonly number[],
  ) => { call: string; f: (x: Tensor) => Tensor | Tensor[] },
  options: Partial<ShapeOptions> = {},
): OpRecord {
  return {
    name,
    gradient: "yes",
    cases: (wanted) =>
      fc
        .tuple(
          shapes({ ...wanted, ...options }),
          fc.array(fc.nat({ max: 720 }), { minLength: 8, maxLength: 8 }),
        )
        .map(([shape, genes]): OpCase => {
          const { call, f } = decode(shape, genes);
          return { call, inputs: [{ shape, domain: [0, 9], dtypes: ALL }], build: ([x]) => f(x!) };
        }),
  };
}

const list = (values: readonly unknown[]): string => JSON.stringify(values);

/** A random shape with the same number of elements, so that axes are grouped or split. */
function anotherShape(shape: readonly number[], genes: readonly number[]): number[] {
  let rest = shape.reduce((n, d) => n * d, 1);
  if (rest === 0) return [...shape].reverse();
  const out: number[] = [];
  for (const gene of genes.slice(0, 3)) {
    const divisors = Array.from({ length: rest }, (_, i) => i + 1).filter((d) => rest % d === 0);
    const d = divisors[gene % divisors.length]!;
    out.push(d);
    rest /= d;
  }
  out.splice(genes[3]! % 4, 0, genes[4]! % 2 === 0 ? -1 : rest);
  return out;
}

/** A range within [0, n); it may be empty if `mayBeEmpty`. */
function range(n: number, a: number, b: number, mayBeEmpty: boolean): [number, number] {
  const start = a % (n + 1);
  const stop = start + (b % (n - start + 1));
  return stop > start || mayBeEmpty || n === 0 ? [start, stop] : [0, n];
}

const joinCase = (
  name: "concat" | "stack",
  f: (tensors: readonly Tensor[], axis: number) => Tensor,
): OpRecord => ({
  name,
  gradient: "yes",
  cases: (options) =>
    fc
      .tuple(
        shapes({ ...options, limit: Math.ceil(options.limit / 9), minRank: name === "concat" ? 1 : 0 }),
        fc.nat({ max: 4 }),
        fc.oneof(
          fc.array(fc.integer({ min: options.zeros ? 0 : 1, max: 4 }), { minLength: 1, maxLength: 3 }),
          // many tensors are joined differently from a few
          fc.array(fc.integer({ min: options.zeros ? 0 : 1, max: 2 }), { minLength: 9, maxLength: 20 }),
        ),
      )
      .map(([shape, n, sizes]) => {
        const axis = n % (name === "concat" ? shape.length : shape.length + 1);
        const inputs = sizes.map((size) => ({
          shape: name === "concat" ? shape.map((d, i) => (i === axis ? size : d)) : shape,
          domain: [0, 9] as const,
          dtypes: ALL,
        }));
        return { call: `${name}([…${sizes.length}], ${axis})`, inputs, build: (x) => f(x, axis) };
      }),
});

export const MOVEMENT: readonly OpRecord[] = [
  movement("reshape", (shape, genes) => {
    const to = anotherShape(shape, genes);
    return { call: `x.reshape(${list(to)})`, f: (x) => x.reshape(to) };
  }),
  movement("permute", (shape, genes) => {
    const order = permutation(genes[0]!, shape.length);
    return { call: `x.permute(${list(order)})`, f: (x) => x.permute(order) };
  }),
  movement(
    "transpose",
    (shape, genes) => {
      const [a, b] = [genes[0]! % shape.length, (genes[1]! % shape.length) - shape.length];
      return { call: `x.transpose(${a}, ${b})`, f: (x) => x.transpose(a, b) };
    },
    { minRank: 2 },
  ),
  movement(
    "expand",
    (shape, genes) => {
      const to = shape.map((d, i) => (d === 1 ? (genes[i]! % 4) + 1 : d));
      if (genes[6]! % 2 === 1) to.unshift((genes[7]! % 3) + 1);
      return { call: `x.expand(${list(to)})`, f: (x) => x.expand(to) };
    },
    { limit: 30 },
  ),
  movement("squeeze", (shape, genes) => {
    const at = genes[0]! % (shape.length + 1);
    const wide = [...shape.slice(0, at), 1, ...shape.slice(at)];
    return { call: `x.reshape(${list(wide)}).squeeze(${at})`, f: (x) => x.reshape(wide).squeeze(at) };
  }),
  movement("unsqueeze", (shape, genes) => {
    const at = (genes[0]! % (shape.length + 1)) - (genes[1]! % 2) * (shape.length + 1);
    return { call: `x.unsqueeze(${at})`, f: (x) => x.unsqueeze(at) };
  }),
  movement("slice", (shape, genes) => {
    const ranges = shape.map((n, i): [number, number, number] | null => {
      const gene = genes[i]!;
      if (gene % 3 === 0) return null;
      return [...range(n, gene, genes[i + 4]!, false), 1 + (gene % 4)];
    });
    return { call: `x.slice(${list(ranges)})`, f: (x) => x.slice(...ranges) };
  }),
  movement(
    "narrow",
    (shape, genes) => {
      const axis = genes[0]! % shape.length;
      const [start, stop] = range(shape[axis]!, genes[1]!, genes[2]!, true);
      return {
        call: `x.narrow(${axis}, ${start}, ${stop - start})`,
        f: (x) => x.narrow(axis, start, stop - start),
      };
    },
    { minRank: 1 },
  ),
  movement(
    "sliceScatter",
    (shape, genes) => {
      const axis = genes[0]! % shape.length;
      const [start, stop] = range(shape[axis]!, genes[1]!, genes[2]!, true);
      const from = genes[3]! % (shape[axis]! - (stop - start) + 1);
      return {
        call: `sliceScatter(x, ${axis}, ${start}, x.narrow(${axis}, ${from}, ${stop - start}))`,
        f: (x) => nn.sliceScatter(x, axis, start, x.narrow(axis, from, stop - start)),
      };
    },
    { minRank: 1 },
  ),
  movement("pad", (shape, genes) => {
    const widths = shape.map((_, i): [number, number] => [genes[i]! % 3, genes[i + 4]! % 4]);
    return { call: `x.pad(${list(widths)})`, f: (x) => x.pad(widths) };
  }),
  movement("flip", (shape, genes) => {
    const axes = axesOf(genes[0]!, shape.length);
    return { call: `x.flip(${list(axes)})`, f: (x) => x.flip(axes) };
  }),
  movement(
    "split",
    (shape, genes) => {
      const axis = genes[0]! % shape.length;
      const [first, second] = range(shape[axis]!, genes[1]!, genes[2]!, true);
      const sizes = [first, second - first, shape[axis]! - second];
      return { call: `x.split(${list(sizes)}, ${axis})`, f: (x) => x.split(sizes, axis) };
    },
    { minRank: 1 },
  ),
  movement(
    "tril",
    (_shape, genes) => {
      const diagonal = (genes[0]! % 7) - 3;
      return { call: `x.tril(${diagonal})`, f: (x) => x.tril(diagonal) };
    },
    { minRank: 2 },
  ),
  movement(
    "triu",
    (_shape, genes) => {
      const diagonal = (genes[0]! % 7) - 3;
      return { call: `x.triu(${diagonal})`, f: (x) => x.triu(diagonal) };
    },
    { minRank: 2 },
  ),
  joinCase("concat", concat),
  joinCase("stack", stack),
];
