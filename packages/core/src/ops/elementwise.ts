/** Elementwise functions composed of primitives: activations, powers, clamping. */
import { computeType } from "@tiedlora/kernels";
import { add, binary, constant, mul, neg, scale, scalar, square, unary, where } from "../build.ts";
import type { Node } from "../node.ts";

/** `value` in the compute type of `x`, handed over at run time. */
const like = (x: Node, value: number): Node => scalar(value, computeType(x.dtype));

/** 1 / (1 + exp(-x)). */
export const sigmoid = (x: Node): Node => unary("recip", add(like(x, 1), unary("exp", neg(x))));

export const relu = (x: Node): Node => where(binary("lt", like(x, 0), x), x, like(x, 0));

/** x · sigmoid(x). */
export const silu = (x: Node): Node => mul(x, sigmoid(x));

/** log(1 + exp(x)), without overflow. */
export function softplus(x: Node): Node {
  const tail = unary("log", add(like(x, 1), unary("exp", neg(unary("abs", x)))));
  return add(relu(x), tail);
}

/** "none": x Φ(x) by erf. "tanh": 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))), GPT-2's gelu_new. */
export function gelu(x: Node, approximate: "none" | "tanh"): Node {
  const bracket =
    approximate === "none"
      ? unary("erf", scale(x, Math.SQRT1_2))
      : unary("tanh", scale(mul(x, add(like(x, 1), scale(square(x), 0.044715))), Math.sqrt(2 / Math.PI)));
  return mul(scale(x, 0.5), add(like(x, 1), bracket));
}

/** -1, 0 or 1. */
export function sign(x: Node): Node {
  const zero = like(x, 0);
  return where(binary("lt", zero, x), like(x, 1), where(binary("lt", x, zero), like(x, -1), zero));
}

/** At least `low`, at most `high`; null leaves a side open. */
export function clamp(x: Node, low: number | null, high: number | null): Node {
  let out = x;
  if (low !== null) out = where(binary("lt", out, like(x, low)), like(x, low), out);
  if (high !== null) out = where(binary("lt", like(x, high), out), like(x, high), out);
  return out;
}

/** x to an integer power by repeated squaring: exact signs, also for negative x. */
function integerPower(x: Node, exponent: number): Node {
  if (exponent < 0) return unary("recip", integerPower(x, -exponent));
  let result: Node | null = null;
  let base = x;
  for (let n = exponent; n > 0; n = Math.floor(n / 2)) {
    if (n % 2 === 1) result = result ? mul(result, base) : base;
    if (n > 1) base = square(base);
  }
  return result ?? add(mul(x, constant(0, computeType(x.dtype))), like(x, 1));
}

/** x to a fixed power. */
export function powNumber(x: Node, exponent: number): Node {
  if (exponent === 0.5) return unary("sqrt", x);
  if (exponent === -0.5) return unary("rsqrt", x);
  if (Number.isInteger(exponent) && Math.abs(exponent) <= 64) return integerPower(x, exponent);
  return unary("exp", scale(unary("log", x), exponent));
}

/** exp(y log x): for x > 0. */
export const pow = (x: Node, y: Node): Node => unary("exp", mul(y, unary("log", x)));
