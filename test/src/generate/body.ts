/** Random bodies of kernels and epilogues, decoded from genes (views.ts explains genes). */
import type { BinaryOp, ComputeType, DType, Instr, Operand, ReduceOp, UnaryOp } from "@tiedlora/core";
import fc from "fast-check";
import { choice } from "./dims.ts";
import { type ViewGene, viewGene } from "./views.ts";

export interface InstrGene {
  readonly op: number;
  readonly a: number;
  readonly b: number;
  readonly c: number;
  readonly value: number;
  readonly view: ViewGene;
}

export const instrGene: fc.Arbitrary<InstrGene> = fc.record({
  op: fc.nat({ max: 9999 }),
  a: choice,
  b: choice,
  c: choice,
  value: fc.integer({ min: -40, max: 40 }),
  view: viewGene,
});

/** What a body may use. */
export interface BodyScope {
  readonly outer: readonly number[];
  readonly inner: readonly number[];
  readonly inEpilogue: boolean;
  readonly dtypes: ReadonlySet<DType>;
  /** An operand to load from, or null if the step may use no further buffer. */
  operand(gene: InstrGene): Operand | null;
  /** Adds a run-time scalar and returns its slot. */
  scalar(value: number): number;
}

/** Builds a body that obeys the rules of the IR. */
class BodyBuilder {
  readonly body: Instr[] = [];
  readonly scope: BodyScope;

  constructor(scope: BodyScope) {
    this.scope = scope;
  }

  push(instr: Instr): number {
    return this.body.push(instr) - 1;
  }

  constant(value: number, dtype: ComputeType): number {
    return this.push({ op: "const", value, dtype });
  }

  /** The `n`-th earlier value of type `dtype`, counted from the newest; a new constant if there is none. */
  pick(n: number, dtype: ComputeType): number {
    const found = this.body.flatMap((instr, i) => (instr.dtype === dtype ? [i] : []));
    if (found.length === 0) return this.constant(dtype === "bool" ? 1 : 2, dtype);
    return found[found.length - 1 - (n % found.length)]!;
  }

  unary(op: UnaryOp, a: number): number {
    return this.push({ op, a, dtype: this.body[a]!.dtype });
  }

  binary(op: BinaryOp, a: number, b: number): number {
    const compares = op === "lt" || op === "le" || op === "eq";
    return this.push({ op, a, b, dtype: compares ? "bool" : this.body[a]!.dtype });
  }
}

type Maker = (b: BodyBuilder, gene: InstrGene) => void;

const pickOf = <T>(n: number, list: readonly T[]): T => list[n % list.length]!;
const integerType = (gene: InstrGene): "i32" | "u32" => (gene.c % 3 === 0 ? "u32" : "i32");

/** A positive value. Functions with a limited domain mostly get one: with any argument their result is NaN too often. */
function positive(b: BodyBuilder, a: number): number {
  return b.binary("add", b.unary("abs", a), b.constant(0.25, "f32"));
}

const makeLoad: Maker = (b, gene) => {
  const from = b.scope.operand(gene);
  if (!from) return;
  const dtype: ComputeType = from.dtype === "f16" || from.dtype === "bf16" ? "f32" : from.dtype;
  b.push({ op: "load", from, dtype });
};

/** The operations on one float: those that get any argument, and those that mostly get a positive one. */
const FLOAT_UNARY: { readonly [K in Exclude<UnaryOp, "not">]: "any" | "positive" } = {
  neg: "any",
  abs: "any",
  tanh: "any",
  sin: "any",
  cos: "any",
  erf: "any",
  floor: "any",
  expm1: "any",
  exp: "positive",
  log: "positive",
  sqrt: "positive",
  rsqrt: "positive",
  recip: "positive",
  log1p: "positive",
};
const unaryOf = (argument: "any" | "positive"): (keyof typeof FLOAT_UNARY)[] =>
  (Object.keys(FLOAT_UNARY) as (keyof typeof FLOAT_UNARY)[]).filter((op) => FLOAT_UNARY[op] === argument);
const ANY = unaryOf("any");
const POSITIVE = unaryOf("positive");

const makeFloatUnary: Maker = (b, gene) => b.unary(pickOf(gene.b, ANY), b.pick(gene.a, "f32"));

const makePartial: Maker = (b, gene) => {
  const op = pickOf(gene.b, POSITIVE);
  const a = b.pick(gene.a, "f32");
  if (gene.c % 5 === 0) b.unary(op, a);
  else if (op === "exp") b.unary("exp", b.binary("min", a, b.constant(3, "f32")));
  else b.unary(op, positive(b, a));
};

const makeFloatBinary: Maker = (b, gene) => {
  const op = pickOf(gene.c, ["add", "sub", "mul", "max", "min"] as const);
  b.binary(op, b.pick(gene.a, "f32"), b.pick(gene.b, "f32"));
};

const makeDivision: Maker = (b, gene) => {
  const any = b.pick(gene.b, "f32");
  const divisor = gene.value % 5 === 0 ? any : positive(b, any);
  b.binary(gene.c % 3 === 0 ? "mod" : "div", b.pick(gene.a, "f32"), divisor);
};

const makeComparison: Maker = (b, gene) => {
  const dtype = pickOf(gene.value + 40, ["f32", "f32", "i32", "u32"] as const);
  b.binary(pickOf(gene.c, ["lt", "le", "eq"] as const), b.pick(gene.a, dtype), b.pick(gene.b, dtype));
};

const makeWhere: Maker = (b, gene) => {
  const dtype = pickOf(gene.value + 40, ["f32", "f32", "i32", "u32"] as const);
  b.push({
    op: "where",
    a: b.pick(gene.a, "bool"),
    b: b.pick(gene.b, dtype),
    c: b.pick(gene.c, dtype),
    dtype,
  });
};

const INTEGER_OPS = [
  ...(["add", "sub", "mul", "max", "min", "and", "or", "xor", "div", "mod", "shl", "shr"] as const),
];

const makeInteger: Maker = (b, gene) => {
  const dtype = integerType(gene);
  const op = pickOf(gene.value + 40, INTEGER_OPS);
  b.binary(op, b.pick(gene.a, dtype), b.pick(gene.b, dtype));
};

const makeIntegerByConstant: Maker = (b, gene) => {
  const dtype = integerType(gene);
  const op = pickOf(gene.b, ["div", "mod", "shl", "shr"] as const);
  const isShift = op === "shl" || op === "shr";
  const size = isShift ? Math.abs(gene.value) : Math.abs(gene.value) % 10;
  b.binary(
    op,
    b.pick(gene.a, dtype),
    b.constant(!isShift && dtype === "i32" && gene.value < 0 ? -size - 1 : size, dtype),
  );
};

const makeBool: Maker = (b, gene) => {
  const op = pickOf(gene.c, ["and", "or", "xor", "not"] as const);
  if (op === "not") b.unary("not", b.pick(gene.a, "bool"));
  else b.binary(op, b.pick(gene.a, "bool"), b.pick(gene.b, "bool"));
};

const makeCast: Maker = (b, gene) => {
  const from = pickOf(gene.b, ["f32", "f32", "i32", "u32", "bool"] as const);
  const choices: { readonly [T in typeof from]: readonly DType[] } = {
    f32: ["f16", "bf16", "i32", "bool"],
    i32: ["f32", "u32", "bool"],
    u32: ["f32", "i32", "bool"],
    bool: ["f32", "i32", "u32"],
  };
  // core never rounds to a type that no buffer can have
  const allowed = choices[from].filter((to) => b.scope.dtypes.has(to));
  const to = pickOf<DType>(gene.c, allowed.length > 0 ? allowed : ["f32"]);
  const dtype = to === "f16" || to === "bf16" ? "f32" : to;
  b.push({ op: "cast", a: b.pick(gene.a, from), to, dtype });
};

const makeReduce: Maker = (b, gene) => {
  if (b.scope.inner.length === 0) return makeFloatBinary(b, gene);
  const dtype = pickOf(gene.c, ["f32", "f32", "f32", "f32", "i32", "u32"] as const);
  const kind: ReduceOp = pickOf(gene.b, ["sum", "max", "min", "sum", "prod"] as const);
  b.push({ op: "reduce", kind, a: b.pick(gene.a, dtype), dtype });
};

const makeConstant: Maker = (b, gene) => {
  const dtype = pickOf(gene.a, ["f32", "f32", "f32", "i32", "u32"] as const);
  const value =
    dtype === "f32" ? Math.fround(gene.value / 7) : dtype === "u32" ? Math.abs(gene.value) : gene.value;
  b.constant(value, dtype);
};

const makeScalar: Maker = (b, gene) => {
  const dtype = gene.a % 4 === 0 ? "i32" : "f32";
  const slot = b.scope.scalar(dtype === "i32" ? gene.value : gene.value / 7);
  b.push({ op: "scalar", slot, dtype });
};

const makeIndex: Maker = (b, gene) => {
  const rank = b.scope.outer.length + b.scope.inner.length;
  if (rank === 0) return makeConstant(b, gene);
  b.push({ op: "index", axis: gene.a % rank, dtype: "i32" });
};

/** How often each kind of instruction occurs, relative to the sum of the weights. */
const MAKERS: readonly (readonly [weight: number, Maker])[] = [
  [16, makeLoad],
  [10, makeFloatUnary],
  [8, makePartial],
  [20, makeFloatBinary],
  [5, makeDivision],
  [6, makeComparison],
  [7, makeWhere],
  [5, makeInteger],
  [4, makeIntegerByConstant],
  [3, makeBool],
  [7, makeCast],
  [14, makeReduce],
  [3, makeConstant],
  [3, makeScalar],
  [4, makeIndex],
];
const TOTAL = MAKERS.reduce((sum, [weight]) => sum + weight, 0);

/** Decodes genes to a body that ends with a value of type f32. */
export function decodeBody(genes: readonly InstrGene[], scope: BodyScope): Instr[] {
  const b = new BodyBuilder(scope);
  if (scope.inEpilogue) b.push({ op: "product", dtype: "f32" });
  for (const gene of genes) {
    let at = gene.op % TOTAL;
    const entry = MAKERS.find(([weight]) => (at -= weight) < 0)!;
    entry[1](b, gene);
  }
  if (b.body.length === 0) b.constant(2, "f32");
  return b.body;
}

/** For each instruction: whether it is the same for all inner elements. */
export function rowLevel(body: readonly Instr[], outerRank: number): boolean[] {
  const out: boolean[] = [];
  for (const instr of body) {
    switch (instr.op) {
      case "const":
      case "scalar":
      case "reduce":
        out.push(true);
        break;
      case "index":
        out.push(instr.axis < outerRank);
        break;
      case "product":
        out.push(false);
        break;
      case "load": {
        const { strides, valid } = instr.from.view;
        out.push(strides.every((s, d) => d < outerRank || (s === 0 && !valid?.[d])));
        break;
      }
      default: {
        const operands =
          "c" in instr ? [instr.a, instr.b, instr.c] : "b" in instr ? [instr.a, instr.b] : [instr.a];
        out.push(operands.every((i) => out[i]!));
      }
    }
  }
  return out;
}
