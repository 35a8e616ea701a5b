/**
 * Activations and similar functions, composed so that value and derivatives of every order keep their precision and their limits
 * everywhere: e = exp(-|x|) does not overflow, and |x| is x · (±1), whose derivative is not 0 at 0. Each function is even up to a
 * step, so both signs at 0 give the same.
 */
import { computeType } from "@tiedlora/kernels";
import { add, binary, cast, constant, div, mul, needFloat, neg, not, scalar, scale } from "../build.ts";
import { square, sub, unary, where } from "../build.ts";
import { derivative } from "../grad.ts";
import type { ActivationOp, Node } from "../graph.ts";

const number = (x: Node, value: number): Node => constant(value, x.dtype);
const wide = (x: Node): Node => cast(x, computeType(x.dtype));
const expNeg = (x: Node): Node => unary("exp", neg(x));

/** Where x > 0; and |x| as x · (±1), whose derivative is not 0 at 0. */
function fold(x: Node): { above: Node; size: Node } {
  const above = binary("lt", number(x, 0), x);
  return { above, size: mul(x, where(above, number(x, 1), number(x, -1))) };
}

/** A function and its derivative. With `smooth`, the derivative is written so that the rules can differentiate it further. */
type Formula = readonly [value: (x: Node) => Node, slope: (x: Node, smooth: boolean) => Node];

/** 1 / (1 + exp(x)) for x >= 0. */
function shut(x: Node): Node {
  const e = expNeg(x);
  return div(e, add(e, number(x, 1)));
}

/** At this size, gates are shut or open in any type: exp(-1e4) is 0. Larger sizes are clamped, since infinity · 0 is NaN. */
const SHUT = 1e4;
const bounded = (size: Node): Node => binary("min", size, number(size, SHUT));
const positivePart = (x: Node): Node => binary("max", x, number(x, 0));

/**
 * x · gate(x) where gate(x) + gate(-x) = 1: max(x, 0) - |x| · gate(-|x|), given q(|x|) = gate(-|x|) and -q' (`fall`), a
 * function of |x| and q.
 */
function gated(q: (size: Node) => Node, fall: (size: Node, q: Node) => Node): Formula {
  const value = (x: Node): Node => {
    const a = bounded(unary("abs", x));
    return sub(positivePart(x), mul(a, q(a)));
  };
  const slope = (x: Node, smooth: boolean): Node => {
    const { above, size } = fold(x);
    const a = bounded(smooth ? size : unary("abs", x));
    const shutSide = q(a);
    const r = sub(shutSide, mul(a, fall(a, shutSide)));
    return where(above, sub(number(x, 1), r), r);
  };
  return [value, slope];
}

/** q (1 - q). */
const bell = (q: Node): Node => mul(q, sub(number(q, 1), q));

const TANH = 2 * Math.sqrt(2 / Math.PI);
const CUBIC = 0.044715 * TANH;
/** c0 + c2 x². */
const parabola = (x: Node, c0: number, c2: number): Node => add(scale(square(x), c2), scalar(c0, x.dtype));

const density = (x: Node): Node => scale(unary("exp", scale(square(x), -0.5)), 1 / Math.sqrt(2 * Math.PI));

function sigmoid(x: Node): Node {
  const { above, size } = fold(x);
  const e = expNeg(size);
  return div(where(above, number(x, 1), e), add(e, number(x, 1)));
}

const FORMULA: { readonly [K in ActivationOp]: Formula } = {
  sigmoid: [
    sigmoid,
    (x) => {
      const e = expNeg(fold(x).size);
      return div(e, square(add(e, number(x, 1))));
    },
  ],
  silu: gated(shut, (_, q) => bell(q)),
  gelu: gated((a) => scale(sub(number(a, 1), unary("erf", scale(a, Math.SQRT1_2))), 0.5), density),
  // ½ (1 - tanh(u)) = 1 / (1 + exp(2u)) with 2u = TANH x + CUBIC x³
  geluTanh: gated(
    (a) => shut(mul(a, parabola(a, TANH, CUBIC))),
    (a, q) => mul(bell(q), parabola(a, TANH, 3 * CUBIC)),
  ),
  softplus: [(x) => add(positivePart(x), unary("log1p", expNeg(unary("abs", x)))), sigmoid],
};

export function isActivation(node: Node): node is Node<ActivationOp> {
  return Object.hasOwn(FORMULA, node.op);
}

/** An activation's node on `x`, in primitives. */
export function composeActivation({ op, attrs }: Node<ActivationOp>, x: Node): Node {
  const [value, slope] = FORMULA[op];
  let y = attrs.order === 0 ? value(x) : slope(x, attrs.order > 1);
  for (let order = 1; order < attrs.order; order++) y = derivative(y, x);
  return y;
}

/** max(a, b) + log1p(exp(-|a - b|)), with a and b clamped in the difference: equal infinities have no difference. */
export function logAddExp(a: Node, b: Node): Node {
  for (const n of [a, b]) needFloat("logAddExp", n);
  const [x, y] = [wide(a), wide(b)];
  const finite = (n: Node): Node => binary("min", binary("max", n, number(n, -3e38)), number(n, 3e38));
  const { above, size } = fold(binary("sub", finite(x), finite(y), "logAddExp"));
  return add(where(above, x, y), unary("log1p", expNeg(size)));
}

/** x to the power y by exp(y log |x|), with IEEE 754's special values, except that -0 counts as 0: x^0 = 1^y = 1 for NaN, too. */
export function power(x: Node, y: Node): Node {
  const [zero, one] = [number(x, 0), number(x, 1)];
  const isWhole = (n: Node): Node => binary("eq", unary("floor", n), n);
  const size = unary("abs", x);
  const power = where(binary("eq", size, one), one, unary("exp", mul(y, unary("log", size))));
  const whole = isWhole(y);
  const isOdd = binary("and", whole, not(isWhole(scale(y, 0.5))));
  const isReal = binary("or", whole, binary("eq", size, number(x, Infinity))); // also ∞ to any power
  const ofNegative = where(isReal, where(isOdd, neg(power), power), number(x, NaN));
  const any = where(binary("lt", x, zero), ofNegative, power);
  // a NaN is below nothing, and its size is not 1
  return where(binary("eq", y, zero), one, where(binary("eq", x, one), one, any));
}
