/**
 * Reading the factors of a product. A kernel sees two sides, each a set of lines (rows of A, columns of B, or the other way round) along
 * the depth k, over which it sums. Each side is read by WGSL functions of its own, which are named after it.
 */
import type { Operand } from "@tiedlora/kernels";
import { type Width, wgslType } from "../arithmetic.ts";
import { address, condition } from "../address.ts";
import type { Bindings } from "../bindings.ts";
import { type BoundOperand, modeOf, type Use } from "../shown.ts";
import type { Sizes } from "../sizes.ts";
import { range, type Target } from "../target.ts";
import type { Product } from "./product.ts";
import { quantizedFunctions, quantizedUses, type QuantizedUses } from "./quantized.ts";

/** One operand of one term: lines of `depth` numbers. */
export interface Side {
  readonly name: string;
  readonly operand: Operand;
  readonly lineAxis: number;
  readonly depthAxis: number;
  readonly lengths: readonly number[];
  /** The axis along which four neighbors can be loaded at once: the lines, the depth, or neither. */
  readonly vector: "line" | "depth" | "none";
  /** What is bound instead of the operand, if that is quantized. */
  readonly packed: QuantizedUses | null;
}

/** One term of the sum. */
export interface Term {
  readonly rows: Side;
  readonly columns: Side;
  readonly depth: number;
}

/** The terms of a product. With `swap`, the kernel's rows are the columns of B. */
export function termsOf(p: Product, swap: boolean): Term[] {
  const rank = p.batch.length;
  return p.k.map((depth, t) => {
    const a = sideOf(`left${t}`, p.inputs[2 * t]!, rank, rank + 1, [...p.batch, p.m, depth]);
    const b = sideOf(`right${t}`, p.inputs[2 * t + 1]!, rank + 1, rank, [...p.batch, depth, p.n]);
    return swap ? { rows: b, columns: a, depth } : { rows: a, columns: b, depth };
  });
}

function sideOf(
  name: string,
  operand: Operand,
  lineAxis: number,
  depthAxis: number,
  lengths: readonly number[],
): Side {
  const along = (vectorAxis: number): boolean =>
    modeOf({ operand, write: false, lengths, vectorAxis }) === "vector" && lengths[vectorAxis]! % 4 === 0;
  const vector = along(lineAxis) ? "line" : along(depthAxis) ? "depth" : "none";
  const packed = operand.quantized ? quantizedUses(operand, operand.quantized) : null;
  return { name, operand, lineAxis, depthAxis, lengths, vector, packed };
}

export const sidesOf = (terms: readonly Term[]): Side[] => terms.flatMap((t) => [t.rows, t.columns]);

/** The requests for bindings of a side. */
export function usesOfSide({ operand, lengths, vector, lineAxis, depthAxis, packed }: Side): Use[] {
  if (packed) return [packed.words, packed.scales, ...(packed.biases ? [packed.biases] : [])];
  const vectorAxis = { line: lineAxis, depth: depthAxis, none: undefined }[vector];
  return [{ operand, write: false, lengths, vectorAxis }];
}

/** `let b{d}` statements: the index along each batch axis, from the linear batch index `b`. */
export function batchIndices(batch: readonly number[], sizes: Sizes): string[] {
  return sizes.split(
    "b",
    batch,
    (d) => `b${d}`,
    (d) => `length${d}`,
  );
}

/** Writes the WGSL that reads the sides of a product. */
export class FactorReader {
  readonly #batch: readonly number[];
  readonly #sides: readonly Side[];
  readonly #bindings: Bindings;
  readonly #target: Target;

  constructor(batch: readonly number[], terms: readonly Term[], bindings: Bindings, target: Target) {
    this.#batch = batch;
    this.#sides = sidesOf(terms);
    this.#bindings = bindings;
    this.#target = target;
  }

  /** The functions that the expressions below call, two at most for each side. */
  functions(): string[] {
    return this.#sides.map((side) => this.#functionsOf(side));
  }

  /** Defines `{name}(base, b, line, k)`, and `{name}v`, which loads four elements along `side.vector`. */
  #functionsOf(side: Side): string {
    const { name, operand, lineAxis, depthAxis, lengths, packed } = side;
    const { elements, sizes } = this.#bindings;
    const bound = this.#boundOf(side);
    const rank = this.#batch.length;
    const indices = lengths.map((_, d) => (d === lineAxis ? "line" : d === depthAxis ? "k" : `b${d}`));
    const valid = condition(operand, lengths, indices, 0, rank + 2, sizes);
    const at = address(operand.view.strides, indices, rank, rank + 2, "base", sizes, name);
    const needsBatch = operand.view.valid?.slice(0, rank).some((range) => range !== null) === true;
    const head = needsBatch ? batchIndices(this.#batch, sizes).map((line) => `  ${line}\n`) : [];
    const define = (suffix: string, type: string, value: string): string => {
      const guard = valid === undefined ? "" : `  if (!(${valid})) { return ${type}(); }\n`;
      return `fn ${name}${suffix}(base: u32, b: u32, line: u32, k: u32) -> ${type} {\n${head.join("")}${guard}  return ${value};\n}`;
    };
    const one = define("", "f32", packed ? `${name}q1(${at})` : elements.load(bound, at));
    const four = (): string =>
      define("v", "vec4<f32>", packed ? `${name}q4(${at})` : elements.loadFour(bound, at));
    return [
      ...(packed ? [quantizedFunctions(name, packed, this.#bindings)] : []),
      one,
      ...(side.vector === "none" ? [] : [four()]),
    ].join("\n");
  }

  #boundOf({ operand, packed }: Side): BoundOperand {
    return this.#bindings.of(packed ? packed.words.operand : operand);
  }

  /** Statements that define `{name}_base` for every side; they need the linear batch index `b`. */
  bases(): string[] {
    const rank = this.#batch.length;
    const indices = range(rank).map((d) => `b${d}`);
    const { sizes } = this.#bindings;
    const base = ({ name, operand, packed }: Side): string => {
      const { offset, strides } = operand.view;
      const start = !packed
        ? this.#bindings.start(operand)
        : offset === 0
          ? undefined
          : sizes.of("offset", offset);
      return `let ${name}_base = ${address(strides, indices, 0, rank, start, sizes, name)};`;
    };
    return [...batchIndices(this.#batch, sizes), ...this.#sides.map(base)];
  }

  /** An expression for one element of a side. */
  one({ name }: Side, line: string, k: string): string {
    return `${name}(${name}_base, b, ${line}, ${k})`;
  }

  /** An expression for four elements along `side.vector`; the index along that axis must be a multiple of 4. */
  four({ name }: Side, line: string, k: string): string {
    return `${name}v(${name}_base, b, ${line}, ${k})`;
  }

  /**
   * An expression for four neighboring lines at one depth; lines beyond the last have unspecified values. `line` is a
   * variable's name.
   */
  lines(side: Side, line: string, k: string): string {
    if (side.vector === "line") return this.four(side, `min(${line}, ${this.#last(side, 4)})`, k);
    const last = this.#last(side, 1);
    const each = range(4).map((c) => this.one(side, `min(${line} + ${c}u, ${last})`, k));
    return `vec4<f32>(${each.join(", ")})`;
  }

  /** An expression for the first of the last `count` lines of a side. */
  #last(side: Side, count: number): string {
    return this.#bindings.sizes.of(
      `last ${count} of axis ${side.lineAxis}`,
      side.lengths[side.lineAxis]! - count,
    );
  }

  /** An expression for the last of a side's lines. */
  lastLine(side: Side): string {
    return this.#last(side, 1);
  }

  /** The type of four numbers as they are staged in workgroup memory. */
  get stagedType(): string {
    return this.#target.matmulPrecision === "f16" ? "vec4<f16>" : "vec4<f32>";
  }

  /** One or four numbers of a side (an expression) in the type they are staged in. */
  staged(side: Side, value: string, width: Width = 4): string {
    if (this.#target.matmulPrecision === "f32") return value;
    return this.#bindings.elements.toF16(this.#boundOf(side), value, width);
  }

  /** Staged numbers as the floats that are multiplied. */
  unstaged(staged: string, width: Width = 4): string {
    if (this.#target.matmulPrecision === "f32") return staged;
    return `${wgslType("f32", width)}(${staged})`;
  }

  /** Numbers of a side that is not staged, rounded like staged ones, as the floats that are multiplied. */
  rounded(side: Side, value: string, width: Width = 4): string {
    return this.unstaged(this.staged(side, value, width), width);
  }
}
