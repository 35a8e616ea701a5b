/** At which loop each value of a scheduled nest is computed, and whether its lanes differ. */
import { operandsOf } from "@tiedlora/kernels";
import { at } from "../../assert.ts";
import type { Nest } from "./nest.ts";
import type { Schedule } from "./schedule.ts";

export interface Dependences {
  /** By instruction: loop depth, 0 outside all loops to 3 in the innermost. */
  readonly depth: readonly number[];
  /** By instruction: whether its lanes differ. */
  readonly varies: readonly boolean[];
}

/** Loop depth and lane dependence of every instruction. */
export function dependencesOf(nest: Nest, plan: Schedule): Dependences {
  const depthOf = (axis: number): number => {
    if (axis === plan.vector) return plan.mode === "row" ? 3 : 2;
    if (!at(plan.axes, axis, "axis").inner) return 1;
    return plan.mode === "row" ? 2 : 3;
  };
  const depth: number[] = [];
  const varies: boolean[] = [];
  nest.body.forEach((instr, i) => {
    if (instr.op === "reduce") {
      depth.push(plan.mode === "row" ? 1 : 2);
      varies.push(plan.mode === "column");
      return;
    }
    const axes: number[] = [];
    const access = nest.loads[i] ?? null;
    if (access !== null) {
      access.strides.forEach((stride, a) => {
        if (stride !== 0 || access.valid[a] !== null) axes.push(a);
      });
    } else if (instr.op === "index") {
      const axis = at(nest.indexAxis, i, "instruction");
      if (axis >= 0) axes.push(axis);
    }
    const operands = operandsOf(instr);
    depth.push(Math.max(0, ...axes.map(depthOf), ...operands.map((a) => at(depth, a, "instruction"))));
    varies.push(axes.includes(plan.vector) || operands.some((a) => varies[a] === true));
  });
  return { depth, varies };
}
