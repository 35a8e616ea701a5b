/** The key by which programs are found: equal for graphs of one structure, different for all others. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { DType } from "@tiedlora/core";
import * as build from "../src/build.ts";
import { VJP } from "../src/grad.ts";
import { codeOf, trace } from "../src/trace.ts";
import type { Node, Op } from "../src/graph.ts";

const data = (shape: readonly number[], dtype: DType = "f32"): Node => {
  const Values = dtype === "i32" ? Int32Array : Float32Array;
  return build.data(new Values(shape.reduce((a, n) => a * n, 1)), shape, dtype);
};

/** Each differs from the others in one thing that a program depends on. */
const GRAPHS: { readonly [what: string]: () => readonly Node[] } = {
  "a matrix": () => [data([2, 6])],
  "another shape": () => [data([6, 2])],
  "another rank": () => [data([12])],
  "another type": () => [data([2, 6], "i32")],
  "an operation": () => [build.unary("exp", data([2, 6]))],
  "another operation": () => [build.unary("log", data([2, 6]))],
  "of another shape": () => [build.unary("exp", data([3, 4]))],
  "two leaves": () => [build.add(data([2, 6]), data([2, 6]))],
  "one leaf twice": () => {
    const x = data([2, 6]);
    return [build.add(x, x)];
  },
  "a - b": () => {
    const [a, b] = [data([2, 6]), data([2, 6])];
    return [build.add(build.sub(a, b), build.neg(a))];
  },
  "b - a": () => {
    const [a, b] = [data([2, 6]), data([2, 6])];
    return [build.add(build.sub(b, a), build.neg(a))];
  },
  "a row stretched": () => [build.add(data([2, 6]), data([6]))],
  "a column stretched": () => [build.add(data([2, 6]), data([2, 1]))],
  "a sum over rows": () => [build.sum(data([4, 4]), [0])],
  "a sum over columns": () => [build.sum(data([4, 4]), [1])],
  "a reshape": () => [build.reshape(data([2, 6]), [3, 4])],
  "another reshape": () => [build.reshape(data([2, 6]), [4, 3])],
  "a permutation that keeps the shape": () => [build.permute(data([3, 3, 3]), [1, 0, 2])],
  "another permutation": () => [build.permute(data([3, 3, 3]), [2, 1, 0])],
  "a number that is part of the program": () => [build.scale(data([2, 6]), 2)],
  "another one": () => [build.scale(data([2, 6]), 0.5)],
  "a number handed over": () => [build.scale(data([2, 6]), 3)],
  "two roots": () => {
    const x = data([2, 6]);
    return [build.unary("exp", x), build.unary("log", x)];
  },
  "two roots, the other way round": () => {
    const x = data([2, 6]);
    return [build.unary("exp", x), build.unary("log", x)].reverse();
  },
  "one root twice": () => {
    const y = build.unary("exp", data([2, 6]));
    return [y, y];
  },
};

function key(make: () => readonly Node[]): string {
  const { hash, structure, sizes } = trace(make(), []);
  return `${hash}: ${structure.join(" ")}: ${sizes.join(" ")}`;
}

test("keys tell structures apart, and equal ones not", () => {
  const known = new Map<string, string>();
  for (const [what, make] of Object.entries(GRAPHS)) {
    const found = key(make);
    assert.equal(key(make), found, `${what}, again`);
    assert.equal(known.get(found), undefined, `${what} has the key of: ${known.get(found)}`);
    known.set(found, what);
  }
});

test("a number handed over is not in the key, nor are values in memory", () => {
  const scaled = (by: number, value: number) => (): Node[] => {
    const x = build.data(new Float32Array(12).fill(value), [2, 6], "f32");
    return [build.scale(x, by)];
  };
  assert.equal(key(scaled(3, 1)), key(scaled(-0.7, 8)));
});

test("operations have different numbers, whichever is traced first", () => {
  const operations = Object.keys(VJP) as Op[];
  assert.equal(new Set(operations.map(codeOf)).size, operations.length);
});
