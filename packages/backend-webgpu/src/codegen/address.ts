/**
 * WGSL expressions for the address of an operand's element, from the indices of the axes, and for whether these indices are
 * valid.
 */
import type { Operand } from "@tiedlora/kernels";
import { allOf } from "./arithmetic.ts";
import type { Sizes } from "./sizes.ts";

/**
 * `start + Σ index·stride` over the axes `[from, to)` that have an index, modulo 2^32 (strides may be negative). Equal strides of operands
 * with the same `role` share a name.
 */
export function address(
  strides: readonly number[],
  indices: readonly string[],
  from: number,
  to: number,
  start: string | undefined,
  sizes: Sizes,
  role = "",
): string {
  const terms = start === undefined ? [] : [start];
  for (let d = from; d < Math.min(to, strides.length); d++) {
    const stride = strides[d]!;
    if (stride === 0 || indices[d] === undefined) continue;
    terms.push(stride === 1 ? indices[d]! : `${indices[d]} * ${sizes.stride(`${role}${d}`, stride)}`);
  }
  return terms.length === 0 ? "0u" : terms.join(" + ");
}

/** The condition that the indices of axes `[from, to)` are valid, or undefined if they always are. */
export function condition(
  operand: Operand,
  lengths: readonly number[],
  indices: readonly string[],
  from: number,
  to: number,
  sizes: Sizes,
): string | undefined {
  const { valid } = operand.view;
  if (!valid) return undefined;
  const tests: string[] = [];
  for (let d = from; d < Math.min(to, valid.length); d++) {
    const range = valid[d];
    if (!range || (range[0] <= 0 && range[1] >= lengths[d]!)) continue;
    const low = Math.max(range[0], 0);
    const count = Math.max(0, Math.min(range[1], lengths[d]!) - low);
    const index = low === 0 ? indices[d]! : `${indices[d]} - ${sizes.of("first valid", low)}`;
    tests.push(`${index} < ${sizes.of("valid", count)}`);
  }
  return allOf(tests);
}
