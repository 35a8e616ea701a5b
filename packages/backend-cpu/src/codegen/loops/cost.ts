/** Estimated run time of single instructions, from which a nest's schedule and passes are chosen. */
import type { Instr, UnaryOp } from "@tiedlora/kernels";

/** Nanoseconds of an operation on four floats; orders of magnitude are enough. */
const UNARY: { readonly [K in UnaryOp]: number } = {
  neg: 0.25,
  abs: 0.25,
  floor: 0.25,
  not: 0.25,
  sqrt: 2,
  rsqrt: 2,
  recip: 2,
  exp: 2.5,
  expm1: 2.5,
  tanh: 2.5,
  erf: 2.5,
  log: 4,
  log1p: 4,
  sin: 4,
  cos: 4,
};

/** Nanoseconds of one instruction on four lanes. */
export function instructionCost({ op }: Instr, integer: boolean): number {
  switch (op) {
    case "const":
    case "scalar":
    case "load":
    case "product":
      return 0;
    case "div":
    case "mod":
      return integer ? 12 : 2;
    default:
      return isUnary(op) ? UNARY[op] : 0.25;
  }
}

/** Whether a value is worth saving for a later pass that would compute it again. */
export function isCostly({ op }: Instr): boolean {
  return op === "div" || op === "mod" || (isUnary(op) && UNARY[op] > 2);
}

function isUnary(op: Instr["op"]): op is UnaryOp {
  return Object.hasOwn(UNARY, op);
}
