/**
 * Finds the additions and comparisons that a driver may get wrong, because WGSL lets it assume that there are no NaNs and
 * infinities: it makes x - x zero and a·x + b·x a product, whatever the way in which both operands come from one x.
 */
import { type Instr, type Operand, operandsOf } from "@tiedlora/kernels";

/** What is known about the values of a body. */
export class Identities {
  readonly #body: readonly Instr[];
  /** Per instruction: the same number for instructions that a compiler can see to be equal. Empty until it is asked for. */
  readonly #number: number[] = [];
  readonly #numbers = new Map<string, number>();
  readonly #operands = new Map<Operand, string>();
  /** Per instruction, once it is asked for: the numbers of the values, but constants, that it adds up or multiplies. */
  readonly #parts = new Map<number, ReadonlySet<number>>();

  constructor(body: readonly Instr[]) {
    this.#body = body;
  }

  /** Whether instructions `a` and `b` are visibly the same value. */
  equal(a: number, b: number): boolean {
    this.#numberAll();
    return this.#equal(a, b);
  }

  #equal(a: number, b: number): boolean {
    return this.#number[a] === this.#number[b];
  }

  #numberAll(): void {
    if (this.#number.length > 0) return;
    for (const [i, instr] of this.#body.entries())
      this.#number[i] = this.#same(instr) ?? this.#numbered(instr, i);
  }

  /** Whether the sum or difference of `a` and `b` can be rewritten, because a value is part of both. */
  overlap(a: number, b: number): boolean {
    this.#numberAll();
    const parts = this.#partsOf(b);
    return [...this.#partsOf(a)].some((part) => parts.has(part));
  }

  /** The number of the operand that `instr` merely repeats, if it does. */
  #same(instr: Instr): number | undefined {
    const of = (i: number): number => this.#number[i]!;
    switch (instr.op) {
      case "where": {
        const condition = this.#body[instr.a]!;
        if (condition.op === "const") return of(condition.value === 0 ? instr.c : instr.b);
        return this.#equal(instr.b, instr.c) ? of(instr.b) : undefined;
      }
      case "max":
      case "min":
        return this.#equal(instr.a, instr.b) ? of(instr.a) : undefined;
      case "neg": {
        const inside = this.#body[instr.a]!;
        return inside.op === "neg" ? of(inside.a) : undefined;
      }
      case "cast":
        return instr.to === this.#body[instr.a]!.dtype ? of(instr.a) : undefined;
      case "mul":
        if (this.#isOne(instr.a)) return of(instr.b);
        return this.#isOne(instr.b) ? of(instr.a) : undefined;
      default:
        return undefined;
    }
  }

  #isOne(i: number): boolean {
    const instr = this.#body[i]!;
    return instr.op === "const" && instr.value === 1;
  }

  /** The number of the first instruction that does the same with the same values. */
  #numbered(instr: Instr, i: number): number {
    const key = `${this.#ownKey(instr)} ${operandsOf(instr)
      .map((a) => this.#number[a]!)
      .join()}`;
    const known = this.#numbers.get(key);
    if (known !== undefined) return known;
    this.#numbers.set(key, i);
    return i;
  }

  /** All that says what `instr` computes, except its operands. */
  #ownKey(instr: Instr): string {
    if (instr.op === "load") return this.#operandKey(instr.from);
    if (instr.op === "const")
      return `const ${instr.dtype} ${Object.is(instr.value, -0) ? "-0" : instr.value}`;
    return `${instr.op} ${instr.dtype} ${parameterOf(instr) ?? ""}`;
  }

  #operandKey(operand: Operand): string {
    let key = this.#operands.get(operand);
    if (key === undefined) {
      const { buffer, dtype, view } = operand;
      const { offset, strides, ...rest } = view;
      const more = rest.moving || rest.valid ? JSON.stringify(rest) : "";
      this.#operands.set(operand, (key = `load ${buffer} ${dtype} ${offset} ${strides.join()} ${more}`));
    }
    return key;
  }

  #partsOf(i: number): ReadonlySet<number> {
    const known = this.#parts.get(i);
    if (known !== undefined) return known;
    const instr = this.#body[i]!;
    const through = ["add", "sub", "neg", "mul", "where"].includes(instr.op);
    const inside = instr.op === "where" ? [instr.b, instr.c] : through ? operandsOf(instr) : [];
    const own = instr.op === "const" ? [] : [this.#number[i]!];
    const parts = new Set([...own, ...inside.flatMap((a) => [...this.#partsOf(a)])]);
    this.#parts.set(i, parts);
    return parts;
  }
}

/** What an instruction has besides its type and its operands; undefined for most. */
function parameterOf(instr: Instr): string | number | undefined {
  switch (instr.op) {
    case "scalar":
      return instr.slot;
    case "index":
      return instr.axis;
    case "cast":
      return instr.to;
    case "reduce":
      return instr.kind;
    default:
      return undefined;
  }
}
