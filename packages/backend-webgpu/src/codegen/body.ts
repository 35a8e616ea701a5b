/**
 * Emits the instructions of a body as WGSL, and determines which of them depend on the inner axes and which are four wide.
 * Loop kernels and matmul epilogues share it.
 */
import {
  type BinaryOp,
  type ComputeType,
  type Instr,
  type Operand,
  operandsOf,
  type Store,
} from "@tiedlora/kernels";
import { BINARY, convert, literal, type Typed, UNARY, type Width, wgslType } from "./arithmetic.ts";
import { address, condition } from "./address.ts";
import type { Bindings } from "./bindings.ts";
import { Identities } from "./identities.ts";
import { isLiteralFloat } from "./sizes.ts";
import { modeOf, type Use } from "./shown.ts";
import { range } from "./target.ts";

/**
 * The iteration space of a body: its axes, the expressions of their indices, and the axis that is walked four elements at a
 * time.
 */
export interface BodySpace {
  readonly body: readonly Instr[];
  readonly stores: readonly Store[];
  /** Lengths of all axes; those from `outerRank` on are folded by reductions. */
  readonly lengths: readonly number[];
  readonly outerRank: number;
  readonly origin: readonly number[];
  readonly vectorAxis: number | undefined;
  /** A u32 expression for the index along each axis; along the vector axis a multiple of 4. */
  readonly indices: readonly string[];
}

/** The operands of a body, as requests for bindings. */
export function usesOf(space: Pick<BodySpace, "body" | "stores" | "lengths" | "vectorAxis">): Use[] {
  const { lengths, vectorAxis } = space;
  const use = (operand: Operand, write: boolean): Use => ({ operand, write, lengths, vectorAxis });
  return [
    ...space.body.flatMap((i) => (i.op === "load" ? [use(i.from, false)] : [])),
    ...space.stores.map((s) => use(s.to, true)),
  ];
}

/** Writes WGSL statements for the instructions of one body. */
export class BodyWriter {
  readonly space: BodySpace;
  /** Per instruction: does it depend on the inner axes? */
  readonly inner: readonly boolean[];
  /** Per instruction: is it four wide? */
  readonly wide: readonly boolean[];
  readonly #bindings: Bindings;
  readonly #hoisted = new Map<Operand, string>();
  readonly #product: string | undefined;
  readonly #identities: Identities;

  /** `product` is the expression for the finished element(s) of a matmul, four wide exactly if there is a vector axis. */
  constructor(space: BodySpace, bindings: Bindings, product?: string) {
    this.space = space;
    this.#bindings = bindings;
    this.#product = product;
    this.#identities = new Identities(space.body);
    const inner: boolean[] = [];
    const wide: boolean[] = [];
    space.body.forEach((instr, i) => {
      inner[i] = this.#dependsOnInner(instr, inner);
      wide[i] = this.#isWide(instr, wide);
    });
    this.inner = inner;
    this.wide = wide;
  }

  #dependsOnInner(instr: Instr, inner: readonly boolean[]): boolean {
    const { outerRank } = this.space;
    if (instr.op === "load") {
      const { strides, valid } = instr.from.view;
      return strides.some((stride, d) => d >= outerRank && (stride !== 0 || Boolean(valid?.[d])));
    }
    if (instr.op === "index") return instr.axis >= outerRank;
    return instr.op !== "reduce" && operandsOf(instr).some((a) => inner[a]);
  }

  #isWide(instr: Instr, wide: readonly boolean[]): boolean {
    const { vectorAxis, outerRank, lengths } = this.space;
    if (vectorAxis === undefined) return false;
    if (instr.op === "load")
      return modeOf({ operand: instr.from, write: false, lengths, vectorAxis }) !== "scalar";
    if (instr.op === "index") return instr.axis === vectorAxis;
    if (instr.op === "product") return true;
    if (instr.op === "reduce" && vectorAxis >= outerRank) return false;
    return operandsOf(instr).some((a) => wide[a]);
  }

  width(i: number): Width {
    return this.wide[i] ? 4 : 1;
  }

  type(i: number): ComputeType {
    return this.space.body[i]!.dtype;
  }

  /** The value of instruction `i`, spread over four lanes where `width` asks for it. */
  value(i: number, width: Width): string {
    return width === 4 && !this.wide[i] ? `${wgslType(this.type(i), 4)}(v${i})` : `v${i}`;
  }

  /** The instructions that `roots` depend on and for which `keep` holds, in order; all others are assumed to be known. */
  needed(roots: readonly number[], keep: (i: number) => boolean): number[] {
    const found = new Set<number>();
    const stack = [...roots];
    for (let i = stack.pop(); i !== undefined; i = stack.pop()) {
      if (found.has(i) || !keep(i)) continue;
      found.add(i);
      stack.push(...operandsOf(this.space.body[i]!));
    }
    return [...found].sort((a, b) => a - b);
  }

  /**
   * Statements to put before the inner loops: they compute the outer part of the address of every operand used in those
   * loops.
   */
  hoist(): string[] {
    const { body, stores, outerRank, indices } = this.space;
    const operands = [
      ...body.flatMap((i, n) => (i.op === "load" && this.inner[n] ? [i.from] : [])),
      ...stores.flatMap((s) => (s.to.view.strides.length > outerRank ? [s.to] : [])),
    ];
    const lines: string[] = [];
    for (const operand of new Set(operands)) {
      const name = `base${this.#hoisted.size}`;
      const { strides } = operand.view;
      const start = this.#bindings.start(operand);
      lines.push(`let ${name} = ${address(strides, indices, 0, outerRank, start, this.#bindings.sizes)};`);
      this.#hoisted.set(operand, name);
    }
    return lines;
  }

  /** The statement that computes instruction `i` (not a reduction) as `v{i}`. */
  compute(i: number): string {
    const instr = this.space.body[i]!;
    if (instr.op === "load") return this.#load(i, instr.from);
    if (instr.op === "const") return `let v${i} = ${this.#constant(i, instr.value, instr.dtype)};`;
    return `let v${i} = ${this.#expression(instr, this.width(i))};`;
  }

  /** A constant; most floats are read at run time, because such as 1 / n of a mean follow from lengths. */
  #constant(i: number, value: number, dtype: ComputeType): string {
    if (dtype !== "f32" || isLiteralFloat(value)) return literal(value, dtype);
    return this.#bindings.sizes.float(`constant${i}`, value);
  }

  #expression(instr: Exclude<Instr, { op: "load" | "const" }>, width: Width): string {
    const arg = (i: number): string => this.value(i, width);
    const typed = (type: ComputeType): Typed => ({
      type,
      width,
      call: (helper, ...args) => this.#bindings.helpers.call(helper, width, args),
    });
    switch (instr.op) {
      case "scalar":
        return scalarText(this.#bindings.scalar({ slot: instr.slot, dtype: instr.dtype }), instr.dtype);
      case "index":
        return this.#index(instr.axis, width);
      case "product":
        return this.#product!;
      case "where":
        return `select(${arg(instr.c)}, ${arg(instr.b)}, ${arg(instr.a)})`;
      case "cast":
        return convert(arg(instr.a), this.type(instr.a), instr.to, typed(this.type(instr.a)));
      case "reduce":
        throw new Error("a reduction is a loop, not an expression");
      default:
        return "b" in instr
          ? this.#binary(instr, typed(this.type(instr.a)))
          : UNARY[instr.op](arg(instr.a), typed(this.type(instr.a)));
    }
  }

  /** An operation on two values. Where compilers would wrongly use that both come from one, it hides that from them. */
  #binary({ op, a, b }: Extract<Instr, { op: BinaryOp }>, typed: Typed): string {
    const [x, y] = [this.value(a, typed.width), this.value(b, typed.width)];
    const float = typed.type === "f32";
    const hidden = float && (op === "add" || op === "sub") && this.#identities.overlap(a, b);
    const same = float && op === "eq" && this.#identities.equal(a, b);
    return BINARY[op](x, hidden ? typed.call("opaque", y) : same ? x : y, typed);
  }

  #index(axis: number, width: Width): string {
    const origin = this.space.origin[axis]!;
    const start = origin === 0 ? "" : ` + ${this.#bindings.sizes.of("origin", origin)}`;
    const one = `i32(${this.space.indices[axis]}${start})`;
    return width === 1 ? one : `vec4<i32>(${one}) + vec4<i32>(0, 1, 2, 3)`;
  }

  /** The address and validity of an operand's element, `shift` elements along the vector axis. */
  #place(operand: Operand, shift: number): { at: string; valid: string | undefined } {
    const { lengths, outerRank, indices: all, vectorAxis } = this.space;
    const indices = shift === 0 ? all : all.map((x, d) => (d === vectorAxis ? `(${x} + ${shift}u)` : x));
    const { strides } = operand.view;
    const { sizes } = this.#bindings;
    const base =
      vectorAxis !== undefined && vectorAxis < outerRank && shift > 0
        ? undefined
        : this.#hoisted.get(operand);
    const at =
      base === undefined
        ? address(strides, indices, 0, lengths.length, this.#bindings.start(operand), sizes)
        : address(strides, indices, outerRank, lengths.length, base, sizes);
    return { at, valid: condition(operand, lengths, indices, 0, lengths.length, sizes) };
  }

  #load(i: number, operand: Operand): string {
    const bound = this.#bindings.of(operand);
    const type = wgslType(this.type(i), this.width(i));
    if (bound.mode !== "gather") {
      const { at, valid } = this.#place(operand, 0);
      const value =
        bound.mode === "vector"
          ? this.#bindings.elements.loadFour(bound, at)
          : this.#bindings.elements.load(bound, at);
      return valid === undefined
        ? `let v${i} = ${value};`
        : `var v${i} = ${type}(); if (${valid}) { v${i} = ${value}; }`;
    }
    const parts = range(4).map((c) => {
      const { at, valid } = this.#place(operand, c);
      const set = `v${i}.${"xyzw"[c]} = ${this.#bindings.elements.load(bound, at)};`;
      return valid === undefined ? set : `if (${valid}) { ${set} }`;
    });
    return `var v${i} = ${type}(); ${parts.join(" ")}`;
  }

  /** The statement that carries out `store`. */
  store(store: Store): string {
    const { to: operand, value } = store;
    const bound = this.#bindings.of(operand);
    const typed = (width: Width): Typed => ({
      type: this.type(value),
      width,
      call: (helper, ...args) => this.#bindings.helpers.call(helper, width, args),
    });
    const stored = operand.dtype === "f16" || operand.dtype === "bf16" ? "f32" : operand.dtype;
    const converted = (x: string, width: Width): string => convert(x, this.type(value), stored, typed(width));
    const guarded = (statement: string, valid: string | undefined): string =>
      valid === undefined ? statement : `if (${valid}) { ${statement} }`;
    if (bound.mode === "vector") {
      const { at, valid } = this.#place(operand, 0);
      return guarded(this.#bindings.elements.storeFour(bound, at, converted(this.value(value, 4), 4)), valid);
    }
    const count = bound.mode === "gather" ? 4 : 1;
    return range(count)
      .map((c) => {
        const { at, valid } = this.#place(operand, c);
        const x = this.wide[value] ? `v${value}.${"xyzw"[c]}` : `v${value}`;
        return guarded(this.#bindings.elements.store(bound, at, converted(x, 1)), valid);
      })
      .join(" ");
  }
}

/** A run-time number from its raw word. */
function scalarText(word: string, dtype: ComputeType): string {
  if (dtype === "bool") return `${word} != 0u`;
  return dtype === "u32" ? word : `bitcast<${dtype}>(${word})`;
}
