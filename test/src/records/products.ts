/** Records of products, lookups and convolutions. */
import type { DType } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import fc from "fast-check";
import { within } from "../generate/dims.ts";
import { F32, FLOATS, type InputSpec, type OpCase, type OpRecord } from "./record.ts";
import { axis, broadcastable, shapes } from "./shapes.ts";

const matmul: OpRecord = {
  name: "matmul",
  gradient: "yes",
  cases: ({ limit, zeros }) => {
    const batches = broadcastable({ limit: 6, zeros: false, maxRank: 2 }, 2);
    const sizes = fc.tuple(axis(limit, zeros), axis(limit, zeros), axis(limit, zeros));
    const vectors = fc.constantFrom("none", "none", "left", "right", "both");
    return fc.tuple(batches, sizes, vectors).map(([[left, right], [m, k, n], vector]) => {
      const [rows, inner] = within([m, k], Math.max(4, limit / 6)) as [number, number];
      const columns = within([n, inner], Math.max(4, limit / 6))[0]!;
      const isVector = (side: string): boolean => vector === side || vector === "both";
      return {
        call: `x.matmul(y), vectors: ${vector}`,
        inputs: [
          { shape: isVector("left") ? [inner] : [...left!, rows, inner], domain: "any", dtypes: FLOATS },
          { shape: isVector("right") ? [inner] : [...right!, inner, columns], domain: "any", dtypes: FLOATS },
        ],
        build: ([x, y]) => x!.matmul(y!),
      };
    });
  },
};

const SPECS: readonly string[] = [
  "ij,jk->ik", "ij,kj->ki", "bij,bjk->bik", "bqhd,bkhd->bhqk", "i,j->ij", "ij->ji", "ij->i", "ij,ij->", "ij,j,jk->ik",
  "abc,cd->dab", "ij,ik->jk", "i,i->i", "bi,ij,bj->b",
  "ii->i", "ii->", "ii", "bii->b", "iij->ji", "iii->i", "ijij->ij", "ii,ij,jj->i", "ab,bc",
  "...ij,...jk->...ik", "...i->...", "i...,i...->...", "...ii->...i", "b...,bc->...c", "...a,...b", "...->...", "...i,i->",
]; // prettier-ignore

/** The shape of a term. "..." stands for up to two axes; some of them have length 1 in some terms and are broadcast. */
function termShape(
  term: string,
  labels: readonly string[],
  sizes: readonly number[],
  seed: number,
): number[] {
  const front = sizes.slice(-2).map((length, i) => ((seed >> i) & 1 ? 1 : length)).slice((seed >> 2) % 3); // prettier-ignore
  const lengths = (part: string): number[] => part.split("").map((label) => sizes[labels.indexOf(label)]!);
  const [before, after] = term.split("...");
  return after === undefined ? lengths(before!) : [...lengths(before!), ...front, ...lengths(after)];
}

const einsumRecord: OpRecord = {
  name: "einsum",
  gradient: "yes",
  cases: ({ limit }) => {
    const lengths = fc.array(fc.integer({ min: 1, max: limit > 100 ? 9 : 3 }), {
      minLength: 8,
      maxLength: 8,
    });
    return fc.tuple(fc.constantFrom(...SPECS), lengths, fc.nat()).map(([spec, sizes, seed]) => {
      const labels = [...new Set(spec.replaceAll(/[^a-z]/g, ""))];
      const terms = spec.split("->")[0]!.split(",");
      const inputs = terms.map((term, i): InputSpec => ({
        shape: termShape(term, labels, sizes, seed >> (4 * i)),
        domain: "any",
        dtypes: F32,
      }));
      return { call: `einsum("${spec}", …)`, inputs, build: (x) => nn.einsum(spec, ...x) };
    });
  },
};

const take: OpRecord = {
  name: "take",
  gradient: "yes",
  cases: ({ limit }) => {
    const table = shapes({ limit, zeros: false, minRank: 1, maxRank: 3 });
    return fc.tuple(table, shapes({ limit: 20, zeros: false, maxRank: 2 })).map(([shape, index]) => ({
      call: "x.take(index)",
      inputs: [
        { shape, domain: "any", dtypes: FLOATS },
        { shape: index, domain: [0, shape[0]!], dtypes: ["i32"] },
      ],
      build: ([x, i]) => x!.take(i!),
    }));
  },
};

/** A shape, one of its axes, and the shape of an index that is not longer than the tensor along the other axes. */
function indexed(limit: number): fc.Arbitrary<{ shape: number[]; axis: number; index: number[] }> {
  const genes = fc.array(fc.nat({ max: 99 }), { minLength: 5, maxLength: 5 });
  return fc.tuple(shapes({ limit, zeros: false, minRank: 1, maxRank: 3 }), genes).map(([shape, g]) => {
    const at = g[0]! % shape.length;
    return {
      shape,
      axis: at,
      index: shape.map((d, i) => (i === at ? 1 + (g[4]! % 5) : 1 + (g[i + 1]! % d))),
    };
  });
}

const gather: OpRecord = {
  name: "gather",
  gradient: "yes",
  cases: ({ limit }) =>
    indexed(limit).map(({ shape, axis: at, index }) => ({
      call: `x.gather(${at}, index)`,
      inputs: [
        { shape, domain: "any", dtypes: FLOATS },
        { shape: index, domain: [0, shape[at]!], dtypes: ["i32"] },
      ],
      build: ([x, i]) => x!.gather(at, i!),
    })),
};

const scatterAdd: OpRecord = {
  name: "scatterAdd",
  gradient: "yes",
  cases: ({ limit }) =>
    indexed(limit).map(({ shape, axis: at, index }) => ({
      call: `x.scatterAdd(${at}, index, y)`,
      inputs: [
        { shape, domain: "any", dtypes: FLOATS },
        { shape: index, domain: [-1, shape[at]! + 1], dtypes: ["i32"] }, // out of range adds nothing
        { shape: index, domain: "any", dtypes: FLOATS },
      ],
      build: ([x, i, y]) => x!.scatterAdd(at, i!, y!),
    })),
};

const oneHot: OpRecord = {
  name: "oneHot",
  gradient: { none: "integers have no derivative" },
  cases: (options) =>
    fc
      .tuple(
        shapes({ ...options, limit: 100, maxRank: 3 }),
        axis(10, false),
        fc.constantFrom<DType>("f32", "i32"),
      )
      .map(([shape, depth, dtype]) => ({
        call: `x.oneHot(${depth}, "${dtype}")`,
        inputs: [{ shape, domain: [-1, depth + 1], dtypes: ["i32"] }], // out of range: zeros
        build: ([x]) => x!.oneHot(depth, dtype),
      })),
};

const small = (max: number): fc.Arbitrary<number> => fc.integer({ min: 1, max });

const conv2d: OpRecord = {
  name: "conv2d",
  gradient: "yes",
  cases: () =>
    fc
      .record({
        n: small(2),
        c: small(2),
        out: small(2),
        h: small(3),
        w: small(3),
        kh: small(2),
        kw: small(2),
      })
      .chain((d) => fc.tuple(fc.constant(d), small(2), fc.nat({ max: 1 })))
      .map(([d, stride, padding]): OpCase => ({
        call: `conv2d(x, k, { stride: ${stride}, padding: ${padding} })`,
        inputs: [
          { shape: [d.n, d.c, d.h + d.kh - 1, d.w + d.kw - 1], domain: "any", dtypes: F32 },
          { shape: [d.out, d.c, d.kh, d.kw], domain: "any", dtypes: F32 },
        ],
        build: ([x, k]) => nn.conv2d(x!, k!, { stride, padding }),
      })),
};

const pool = (name: "maxPool2d" | "avgPool2d"): OpRecord => {
  const f = { maxPool2d: nn.maxPool2d, avgPool2d: nn.avgPool2d }[name];
  return {
    name,
    gradient: "yes",
    cases: () =>
      fc
        .record({ n: small(2), c: small(2), h: small(4), w: small(4), size: small(3), stride: small(3) })
        .map((d): OpCase => ({
          call: `${name}(x, ${d.size}, ${d.stride})`,
          inputs: [
            { shape: [d.n, d.c, d.h + d.size - 1, d.w + d.size - 1], domain: "distinct", dtypes: F32 },
          ],
          build: ([x]) => f(x!, d.size, d.stride),
        })),
  };
};

export const PRODUCTS: readonly OpRecord[] = [
  matmul,
  einsumRecord,
  take,
  gather,
  scatterAdd,
  oneHot,
  conv2d,
  pool("maxPool2d"),
  pool("avgPool2d"),
];
