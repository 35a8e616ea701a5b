/** A matrix times a vector as a loop kernel: one reduction per element, which reads the matrix once. */
import type { Instr, LoopKernel, Operand, View } from "@tiedlora/kernels";
import { range } from "../target.ts";
import type { Product } from "./product.ts";

/** The product as a row reduction; it must have exactly one term. */
export function asLoop({ batch, m, n, k, inputs, epilogue }: Product): LoopKernel {
  const rank = batch.length;
  const over = (o: Operand, axes: (of: readonly number[]) => number[]): Operand => {
    const valid = o.view.valid && { valid: axesOf(o.view.valid, axes(range(rank + 2))) };
    return { ...o, view: { ...o.view, strides: axes(o.view.strides), ...valid } };
  };
  const [a, b] = [inputs[0]!, inputs[1]!];
  const f32 = "f32" as const;
  const head: Instr[] = [
    { op: "load", from: over(a, (s) => [...s.slice(0, rank), s[rank]!, MISSING, s[rank + 1]!]), dtype: f32 },
    { op: "load", from: over(b, (s) => [...s.slice(0, rank), MISSING, s[rank + 1]!, s[rank]!]), dtype: f32 },
    { op: "mul", a: 0, b: 1, dtype: f32 },
    { op: "reduce", kind: "sum", a: 2, dtype: f32 },
  ];
  const stretch = (v: View): View => ({
    ...v,
    strides: [...v.strides, 0],
    ...(v.valid ? { valid: [...v.valid, null] } : {}),
  });
  const tail = epilogue.body.map((instr): Instr => {
    if (instr.op === "product") return { op: "cast", a: 3, to: f32, dtype: f32 };
    if (instr.op === "load") return { ...instr, from: { ...instr.from, view: stretch(instr.from.view) } };
    return shifted(instr, head.length);
  });
  return {
    type: "loop",
    outer: [...batch, m, n],
    inner: [k[0]!],
    body: fixStrides([...head, ...tail]),
    stores: epilogue.stores.map((s) => ({ ...s, value: s.value + head.length })),
  };
}

/** Marks an axis that an operand does not have, until `fixStrides` sets its stride to 0. */
const MISSING = Number.MIN_SAFE_INTEGER;

function axesOf<T>(valid: readonly (T | null)[], axes: readonly number[]): (T | null)[] {
  return axes.map((a) => (a === MISSING ? null : valid[a]!));
}

function fixStrides(body: readonly Instr[]): Instr[] {
  return body.map((i) =>
    i.op === "load"
      ? {
          ...i,
          from: {
            ...i.from,
            view: { ...i.from.view, strides: i.from.view.strides.map((s) => (s === MISSING ? 0 : s)) },
          },
        }
      : i,
  );
}

/** The instruction with `by` added to the numbers of its operands. */
function shifted(instr: Instr, by: number): Instr {
  if ("c" in instr) return { ...instr, a: instr.a + by, b: instr.b + by, c: instr.c + by };
  if ("b" in instr) return { ...instr, a: instr.a + by, b: instr.b + by };
  return "a" in instr ? { ...instr, a: instr.a + by } : instr;
}
