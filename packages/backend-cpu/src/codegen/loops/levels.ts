/** Which reductions depend on one another: all reductions of one level are computed in the same walk over the inner axes. */
import { type Instr, operandsOf } from "@tiedlora/kernels";
import { at } from "../../assert.ts";
import type { Nest } from "./nest.ts";

/** By instruction: the largest number of successive reductions that it depends on, itself included. */
export function levels(body: readonly Instr[]): number[] {
  const level: number[] = [];
  for (const instr of body) {
    const below = Math.max(0, ...operandsOf(instr).map((a) => at(level, a, "instruction")));
    level.push(instr.op === "reduce" ? below + 1 : below);
  }
  return level;
}

/** Whether the nest has reductions, none of which depends on another, and stores only once per outer index. */
export function singlePass(nest: Nest): boolean {
  const level = levels(nest.body);
  const reduces = nest.body.flatMap((instr, i) =>
    instr.op === "reduce" ? [at(level, i, "instruction")] : [],
  );
  return reduces.length > 0 && reduces.every((l) => l === 1) && nest.stores.every((store) => store.row);
}
