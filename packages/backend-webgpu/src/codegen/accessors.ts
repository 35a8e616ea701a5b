/** WGSL functions that load and store the elements of an operand by index, for the library kernels. */
import { computeType, type Operand } from "@tiedlora/kernels";
import { allOf, wgslType } from "./arithmetic.ts";
import { address, condition } from "./address.ts";
import type { Bindings } from "./bindings.ts";
import { modeOf, type Use } from "./shown.ts";
import { range } from "./target.ts";

/** A request for an operand, whose last axis is accessed four elements at a time if its view allows that. */
export function useOf(operand: Operand, lengths: readonly number[], write: boolean): Use {
  const last = lengths.length - 1;
  const use: Use = { operand, write, lengths, vectorAxis: last };
  const suits = lengths[last]! % 4 === 0 && modeOf(use) === "vector";
  return suits ? use : { ...use, vectorAxis: undefined };
}

const names = (lengths: readonly number[]): string[] => lengths.map((_, d) => `i${d}`);
const parameters = (lengths: readonly number[]): string =>
  names(lengths)
    .map((n) => `${n}: u32`)
    .join(", ");

interface Place {
  readonly at: string;
  readonly valid: string | undefined;
}

/**
 * The address and validity of the element `shift` elements along the last axis; if `shift` is given, the end of that axis is
 * checked too.
 */
function place(operand: Operand, lengths: readonly number[], bindings: Bindings, shift?: number): Place {
  const last = lengths.length - 1;
  const indices = names(lengths);
  if (shift) indices[last] = `(${indices[last]} + ${shift}u)`;
  const { sizes } = bindings;
  const valid = condition(operand, lengths, indices, 0, lengths.length, sizes);
  const inside =
    shift === undefined ? undefined : `${indices[last]} < ${sizes.of(`length${last}`, lengths[last]!)}`;
  const tests = [valid, inside].filter((x) => x !== undefined);
  return {
    at: address(operand.view.strides, indices, 0, lengths.length, bindings.start(operand), sizes),
    valid: allOf(tests),
  };
}

/** `fn name(i0, …)`: the element at the indices. */
export function loadFunction(
  name: string,
  operand: Operand,
  lengths: readonly number[],
  bindings: Bindings,
): string {
  const type = computeType(operand.dtype);
  const { at, valid } = place(operand, lengths, bindings);
  const guard = valid === undefined ? "" : ` if (!(${valid})) { return ${type}(); }`;
  return `fn ${name}(${parameters(lengths)}) -> ${type} {${guard} return ${bindings.elements.load(bindings.of(operand), at)}; }`;
}

/** `fn name(i0, …)`: four elements along the last axis, from an index that is a multiple of 4; zeros beyond the end. */
export function loadFourFunction(
  name: string,
  operand: Operand,
  lengths: readonly number[],
  bindings: Bindings,
): string {
  const bound = bindings.of(operand);
  const type = wgslType(computeType(operand.dtype), 4);
  const head = `fn ${name}(${parameters(lengths)}) -> ${type} {`;
  if (bound.mode === "vector") {
    const { at, valid } = place(operand, lengths, bindings);
    const guard = valid === undefined ? "" : ` if (!(${valid})) { return ${type}(); }`;
    return `${head}${guard} return ${bindings.elements.loadFour(bound, at)}; }`;
  }
  const parts = range(4).map((c) => {
    const { at, valid } = place(operand, lengths, bindings, c);
    return `if (${valid}) { v.${"xyzw"[c]} = ${bindings.elements.load(bound, at)}; }`;
  });
  return `${head} var v = ${type}(); ${parts.join(" ")} return v; }`;
}

/** `fn name(i0, …, v)`: stores one element of the operand's compute type. */
export function storeFunction(
  name: string,
  operand: Operand,
  lengths: readonly number[],
  bindings: Bindings,
): string {
  const type = computeType(operand.dtype);
  const { at, valid } = place(operand, lengths, bindings);
  const guard = valid === undefined ? "" : ` if (!(${valid})) { return; }`;
  return `fn ${name}(${parameters(lengths)}, v: ${type}) {${guard} ${bindings.elements.store(bindings.of(operand), at, "v")} }`;
}

/**
 * `fn name(i0, …, v)`: stores four elements along the last axis, from an index that is a multiple of 4; stores none beyond
 * the end.
 */
export function storeFourFunction(
  name: string,
  operand: Operand,
  lengths: readonly number[],
  bindings: Bindings,
): string {
  const bound = bindings.of(operand);
  const head = `fn ${name}(${parameters(lengths)}, v: ${wgslType(computeType(operand.dtype), 4)}) {`;
  if (bound.mode === "vector") {
    const { at, valid } = place(operand, lengths, bindings);
    const guard = valid === undefined ? "" : ` if (!(${valid})) { return; }`;
    return `${head}${guard} ${bindings.elements.storeFour(bound, at, "v")} }`;
  }
  const parts = range(4).map((c) => {
    const { at, valid } = place(operand, lengths, bindings, c);
    return `if (${valid}) { ${bindings.elements.store(bound, at, `v.${"xyzw"[c]}`)} }`;
  });
  return `${head} ${parts.join(" ")} }`;
}
