/** Records of elementwise operations. */
import { type DType, type Tensor, where } from "@tiedlora/core";
import fc from "fast-check";
import { BOOL, type Domain, F32, FLOATS, INTEGERS, NUMBERS, type OpRecord } from "./record.ts";
import { broadcastable, shapes } from "./shapes.ts";

const YES = "yes";

function unary(
  name: string,
  f: (x: Tensor) => Tensor,
  {
    domain = "any",
    dtypes = FLOATS,
    gradient = YES,
    call = `x.${name}()`,
  }: {
    domain?: Domain;
    dtypes?: readonly DType[];
    gradient?: OpRecord["gradient"];
    call?: string;
  } = {},
): OpRecord {
  return {
    name,
    gradient,
    cases: (options) =>
      shapes(options).map((shape) => ({ call, inputs: [{ shape, domain, dtypes }], build: ([x]) => f(x!) })),
  };
}

/** An operation of two tensors, or of a tensor and a number (a multiple of 1/4, see Domain). */
function binary(
  name: string,
  f: (x: Tensor, y: Tensor | number) => Tensor,
  {
    left = "any",
    right = "any",
    dtypes = NUMBERS,
    gradient = YES,
  }: {
    left?: Domain;
    right?: Domain;
    dtypes?: readonly DType[];
    gradient?: OpRecord["gradient"];
  } = {},
): OpRecord {
  return {
    name,
    gradient,
    cases: (options) => {
      const two = broadcastable(options, 2).map(([a, b]) => ({
        call: `x.${name}(y)`,
        inputs: [
          { shape: a!, domain: left, dtypes },
          { shape: b!, domain: right, dtypes },
        ],
        build: ([x, y]: readonly Tensor[]) => f(x!, y!),
      }));
      const floats = dtypes.filter((d) => d !== "i32" && d !== "u32");
      if (floats.length === 0) return two;
      const value = fc.constantFrom(1.25, 2, 0.5, 3, ...(right === "any" ? [0, 1, -1, -0.75] : []));
      const one = fc.tuple(shapes(options), value).map(([shape, y]) => ({
        call: `x.${name}(${y})`,
        inputs: [{ shape, domain: left, dtypes: floats }],
        build: ([x]: readonly Tensor[]) => f(x!, y),
      }));
      return fc.oneof({ arbitrary: two, weight: 3 }, { arbitrary: one, weight: 1 });
    },
  };
}

const none = (reason: string): OpRecord["gradient"] => ({ none: reason });
const OUTCOME = none("the outcome of a comparison is constant between jumps");
const INTEGER = none("integers and bool have no derivative");

const logic = (name: "and" | "or" | "xor"): OpRecord => {
  const f = (x: Tensor, y: Tensor): Tensor => x[name](y);
  return {
    name,
    gradient: INTEGER,
    cases: (options) =>
      fc.tuple(broadcastable(options, 2), fc.boolean()).map(([[a, b], onBool]) => {
        const rest = onBool
          ? { domain: "bool" as const, dtypes: BOOL }
          : { domain: [0, 2 ** 20] as const, dtypes: INTEGERS };
        return {
          call: `x.${name}(y)`,
          inputs: [
            { shape: a!, ...rest },
            { shape: b!, ...rest },
          ],
          build: ([x, y]: readonly Tensor[]) => f(x!, y!),
        };
      }),
  };
};

const pow: OpRecord = {
  name: "pow",
  gradient: YES,
  cases: (options) => {
    const two = broadcastable(options, 2).map(([a, b]) => ({
      call: "x.pow(y)",
      inputs: [
        { shape: a!, domain: "positive" as const, dtypes: F32 },
        { shape: b!, domain: "any" as const, dtypes: F32 },
      ],
      build: ([x, y]: readonly Tensor[]) => x!.pow(y!),
    }));
    const exponent = fc.constantFrom(0, 1, 2, 3, 5, -1, -2, 0.5, -0.5, 1.7);
    const one = fc.tuple(shapes(options), exponent).map(([shape, y]) => ({
      call: `x.pow(${y})`,
      inputs: [
        { shape, domain: Number.isInteger(y) ? ("away" as const) : ("positive" as const), dtypes: FLOATS },
      ],
      build: ([x]: readonly Tensor[]) => x!.pow(y),
    }));
    // whole powers, also of negative numbers
    const whole = broadcastable(options, 2).map(([a, b]) => ({
      call: "x.pow(y.floor())",
      inputs: [
        { shape: a!, domain: "away" as const, dtypes: F32 },
        { shape: b!, domain: "any" as const, dtypes: F32, fixed: true as const },
      ],
      build: ([x, y]: readonly Tensor[]) => x!.pow(y!.floor()),
    }));
    return fc.oneof(two, one, whole);
  },
};

const clamp: OpRecord = {
  name: "clamp",
  gradient: YES,
  cases: (options) => {
    const bound = fc.option(fc.constantFrom(-1, -0.5, 0, 0.25));
    return fc.tuple(shapes(options), bound, bound).map(([shape, low, width]) => {
      const high = width === null ? null : (low ?? -1) + 0.5 + Math.abs(width);
      return {
        call: `x.clamp(${low}, ${high})`,
        inputs: [{ shape, domain: "away", dtypes: FLOATS }],
        build: ([x]) => x!.clamp(low, high),
      };
    });
  },
};

const choose: OpRecord = {
  name: "where",
  gradient: YES,
  cases: (options) =>
    broadcastable(options, 3).map(([a, b, c]) => ({
      call: "where(c, x, y)",
      inputs: [
        { shape: a!, domain: "bool", dtypes: BOOL },
        { shape: b!, domain: "any", dtypes: FLOATS },
        { shape: c!, domain: "any", dtypes: FLOATS },
      ],
      build: ([x, y, z]) => where(x!, y!, z!),
    })),
};

const casts: readonly (readonly [from: DType, domain: Domain, to: DType])[] = [
  ["f32", "any", "f16"],
  ["f32", "any", "bf16"],
  ["f32", "any", "i32"],
  ["f32", [0, 1000], "u32"],
  ["f32", [-1, 2], "bool"],
  ["f16", "any", "f32"],
  ["f16", "any", "i32"],
  ["bf16", "any", "f32"],
  ["bf16", "any", "f16"],
  ["i32", [-20, 20], "f32"],
  ["i32", [-2000, 2000], "f16"],
  ["i32", [-20, 20], "u32"],
  ["i32", [-1, 2], "bool"],
  ["u32", [0, 2 ** 31], "f32"],
  ["u32", [0, 9], "i32"],
  ["bool", "bool", "f32"],
  ["bool", "bool", "i32"],
  ["bool", "bool", "bf16"],
];

const cast: OpRecord = {
  name: "cast",
  gradient: none("rounding is a staircase; the record below checks the rule"),
  cases: (options) =>
    fc.tuple(shapes(options), fc.constantFrom(...casts)).map(([shape, [from, domain, to]]) => ({
      call: `x.cast("${to}")`,
      inputs: [{ shape, domain, dtypes: [from] }],
      needs: [to],
      build: ([x]) => x!.cast(to),
    })),
};

/** A conversion to f64, which changes no value. */
const widen: OpRecord = {
  name: "cast",
  gradient: YES,
  derivativeInputs: "f32",
  cases: (options) =>
    shapes(options).map((shape) => ({
      call: 'x.cast("f64").square()',
      inputs: [{ shape, domain: "any", dtypes: ["f32"] }],
      needs: ["f64"],
      build: ([x]) => x!.cast("f64").square(),
    })),
};

export const ELEMENTWISE: readonly OpRecord[] = [
  binary("add", (x, y) => x.add(y)),
  binary("add", (x, y) => x.add(y), { dtypes: INTEGERS, gradient: INTEGER }),
  binary("sub", (x, y) => x.sub(y)),
  binary("mul", (x, y) => x.mul(y)),
  binary("mul", (x, y) => x.mul(y), { dtypes: INTEGERS, gradient: INTEGER }),
  binary("div", (x, y) => x.div(y), { right: "positive", dtypes: FLOATS }),
  // with small divisors, most quotients have a nonzero whole part, on which the derivative for y depends
  binary("mod", (x, y) => x.mod(y), { left: "away", right: [1, 3], dtypes: FLOATS }),
  binary("maximum", (x, y) => x.maximum(y), { left: "away", right: [-1, 2] }),
  binary("minimum", (x, y) => x.minimum(y), { left: "away", right: [-1, 2] }),
  ...(["lt", "le", "gt", "ge", "eq", "ne"] as const).map((name) =>
    binary(name, (x, y) => x[name](y), { left: [0, 4], right: [0, 4], gradient: OUTCOME }),
  ),
  logic("and"),
  logic("or"),
  logic("xor"),
  pow,
  clamp,
  choose,
  cast,
  widen,
  unary("not", (x) => x.not(), { domain: "bool", dtypes: BOOL, gradient: INTEGER }),
  unary("neg", (x) => x.neg()),
  unary("exp", (x) => x.exp()),
  unary("expm1", (x) => x.expm1()),
  unary("log", (x) => x.log(), { domain: "positive" }),
  unary("log1p", (x) => x.log1p(), { domain: "unit" }),
  unary("sqrt", (x) => x.sqrt(), { domain: "positive" }),
  unary("rsqrt", (x) => x.rsqrt(), { domain: "positive" }),
  unary("reciprocal", (x) => x.reciprocal(), { domain: "away" }),
  unary("sin", (x) => x.sin()),
  unary("cos", (x) => x.cos()),
  unary("tanh", (x) => x.tanh()),
  unary("erf", (x) => x.erf()),
  unary("floor", (x) => x.floor(), { gradient: none("constant between jumps") }),
  unary("sign", (x) => x.sign(), { gradient: none("constant between jumps") }),
  unary("abs", (x) => x.abs(), { domain: "away" }),
  unary("square", (x) => x.square()),
  unary("isNaN", (x) => x.isNaN(), { gradient: OUTCOME }),
  unary("sigmoid", (x) => x.sigmoid()),
  unary("relu", (x) => x.relu(), { domain: "away" }),
  unary("silu", (x) => x.silu()),
  unary("softplus", (x) => x.softplus()),
  binary("logAddExp", (x, y) => x.logAddExp(y), { dtypes: FLOATS }),
  unary("gelu", (x) => x.gelu(), { call: "x.gelu()" }),
  unary("gelu", (x) => x.gelu("tanh"), { call: 'x.gelu("tanh")' }),
  unary("detach", (x) => x.detach().mul(x), { call: "x.detach().mul(x)", gradient: none("what it is for") }),
];
