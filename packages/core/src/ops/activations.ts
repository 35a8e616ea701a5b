/**
 * Activations and their like, so composed that value and derivatives of every order keep their precision and their limits
 * everywhere: e = exp(-|x|) does not overflow, and |x| is x · (±1), whose derivative is not 0 at 0. What these are is even
 * up to a step, so both signs there give the same.
 */
import { computeType } from "@tiedlora/kernels";
import { add, binary, cast, constant, div, mul, neg, scalar, scale } from "../build.ts";
import { square, sub, unary, where } from "../build.ts";
import { derivative } from "../grad.ts";
import type { ActivationOp, Node } from "../node.ts";

const number = (x: Node, value: number): Node => constant(value, x.dtype);
const wide = (x: Node): Node => cast(x, computeType(x.dtype));
const expNeg = (x: Node): Node => unary("exp", neg(x));

/** Where x > 0; max(x, 0), which may lose a NaN; and |x|, which keeps it. */
function fold(x: Node): { above: Node; ramp: Node; size: Node } {
  const above = binary("lt", number(x, 0), x);
  const size = mul(x, where(above, number(x, 1), number(x, -1)));
  return { above, ramp: where(above, x, number(x, 0)), size };
}

/** Where gates are shut or open in any type: exp(-1e4) is 0, and an infinity times it would be NaN. */
const SHUT = 1e4;

/** x · gate(x) where gate(x) + gate(-x) = 1: max(x, 0) - |x| · gate(-|x|), given the shut side of the gate. */
function gated(x: Node, gate: (size: Node) => Node): Node {
  const { ramp, size } = fold(x);
  const inside = where(binary("lt", number(x, SHUT), size), number(x, SHUT), size);
  return sub(ramp, mul(inside, gate(inside)));
}

/** 1 / (1 + exp(x)) for x >= 0. */
function shut(x: Node): Node {
  const e = expNeg(x);
  return div(e, add(e, number(x, 1)));
}

function sigmoid(x: Node): Node {
  const { above, size } = fold(x);
  const e = expNeg(size);
  return div(where(above, number(x, 1), e), add(e, number(x, 1)));
}

/** Φ(-x). */
function tail(x: Node): Node {
  return scale(sub(number(x, 1), unary("erf", scale(x, Math.SQRT1_2))), 0.5);
}

/** ½ (1 - tanh(√(2/π) (x + 0.044715 x³))) = 1 / (1 + exp(2 √(2/π) …)). */
function tailByTanh(x: Node): Node {
  const slope = 2 * Math.sqrt(2 / Math.PI);
  return shut(mul(x, add(scale(square(x), 0.044715 * slope), scalar(slope, x.dtype))));
}

function softplus(x: Node): Node {
  const { ramp, size } = fold(x);
  return add(ramp, unary("log1p", expNeg(size)));
}

const FORMULA: { readonly [K in ActivationOp]: (x: Node) => Node } = {
  sigmoid,
  silu: (x) => gated(x, shut),
  gelu: (x) => gated(x, tail),
  geluTanh: (x) => gated(x, tailByTanh),
  softplus,
};

export function isActivation(node: Node): node is Node<ActivationOp> {
  return Object.hasOwn(FORMULA, node.op);
}

/** An activation's node on `x`, in primitives. */
export function composeActivation({ op, attrs }: Node<ActivationOp>, x: Node): Node {
  let y = FORMULA[op](x);
  for (let order = 0; order < attrs.order; order++) y = derivative(y, x);
  return y;
}

/** max(a, b) + log1p(exp(-|a - b|)), the difference of finite numbers: two equal infinities have none. */
export function logAddExp(a: Node, b: Node): Node {
  const [x, y] = [wide(a), wide(b)];
  const finite = (n: Node): Node => binary("min", binary("max", n, number(n, -3e38)), number(n, 3e38));
  const { above, size } = fold(sub(finite(x), finite(y)));
  return add(where(above, x, y), unary("log1p", expNeg(size)));
}

/** x to the power y by exp(y log |x|), with IEEE's signs and special values: x^0 = 1^y = 1 for NaN, too. */
export function power(x: Node, y: Node): Node {
  const [zero, one] = [number(x, 0), number(x, 1)];
  const isWhole = (n: Node): Node => binary("eq", unary("floor", n), n);
  const size = unary("abs", x);
  const power = where(binary("eq", size, one), one, unary("exp", mul(y, unary("log", size))));
  const signed = where(isWhole(scale(y, 0.5)), power, neg(power));
  const ofNegative = where(isWhole(y), signed, number(x, NaN));
  const any = where(binary("lt", x, zero), ofNegative, power);
  // a NaN is below nothing, and its size is not 1
  return where(binary("eq", y, zero), one, where(binary("eq", x, one), one, any));
}
