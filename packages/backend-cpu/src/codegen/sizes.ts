/**
 * The numbers in a step's code that follow from lengths. Code for a single step has them as constants. Code that serves all steps of one
 * structure reads them from the step's arguments, at function entry.
 */
import type { Expr, Fn, Int, Local } from "./assembler.ts";
import { i32, v128 } from "./instructions.ts";

/** 32-bit integers (or the bits of floats) by name, always in the same order for one structure. */
export class Numbers {
  readonly values: number[] = [];
  /** By number: the parts of its name. Names are made where code is emitted, and most steps have code already. */
  readonly #stems: string[] = [];
  readonly #suffixes: string[] = [];
  readonly #axes: number[] = [];

  constructor(first: Readonly<Record<string, number>> = {}) {
    for (const name in first) this.add(name, first[name]!);
  }

  get names(): readonly string[] {
    return this.#stems.map(
      (stem, i) => `${stem}${this.#suffixes[i]!}${this.#axes[i]! < 0 ? "" : this.#axes[i]!}`,
    );
  }

  /** Adds a number, whose name is `name` followed by `suffix` and, unless it is -1, `axis`. */
  add(name: string, value: number, suffix = "", axis = -1): void {
    this.#stems.push(name);
    this.#suffixes.push(suffix);
    this.#axes.push(axis);
    this.values.push(value);
  }
}

/** The numbers as `f` sees them. */
export class Sizes {
  readonly #f: Fn;
  readonly #numbers: Numbers;
  readonly #args: Local | null;
  readonly #at: number;
  readonly #places = new Map<string, number>();

  /** `args`: the address of the step's arguments, with the numbers `at` bytes after it; null for constants. */
  constructor(f: Fn, numbers: Numbers, args: Local | null, at: number) {
    this.#f = f;
    this.#numbers = numbers;
    this.#args = args;
    this.#at = at;
    numbers.names.forEach((name, i) => this.#places.set(name, i));
  }

  /** Whether the numbers are read at run time. */
  get isGeneral(): boolean {
    return this.#args !== null;
  }

  int(name: string): Int {
    if (this.#args === null) return this.#constant(name);
    return this.#f.constant(`size:${name}`, i32.load(this.#args, this.#place(name)));
  }

  /** A multiple of a number. */
  times(name: string, factor: number): Int {
    if (this.#args === null) return this.#constant(name) * factor;
    if (factor === 0) return 0;
    const one = this.int(name);
    return factor === 1 ? one : this.#f.constant(`size:${name}*${factor}`, i32.mul(one, factor));
  }

  /** The float with the bits of a number, in all lanes; only where numbers are read at run time. */
  lanes(name: string): Expr {
    if (this.#args === null)
      throw new Error(`a bug in the CPU backend: ${name} is a constant; please report it`);
    return this.#f.constant(`lanes:${name}`, v128.load32_splat(this.#args, this.#place(name)));
  }

  #constant(name: string): number {
    return this.#numbers.values[this.#index(name)]!;
  }

  #place(name: string): number {
    return this.#at + 4 * this.#index(name);
  }

  #index(name: string): number {
    const index = this.#places.get(name);
    if (index === undefined)
      throw new Error(`a bug in the CPU backend: a step has no number ${name}; please report it`);
    return index;
  }
}

const word = new DataView(new ArrayBuffer(4));

/** The bits of a number as f32. */
export function bitsOf(value: number): number {
  word.setFloat32(0, value);
  return word.getInt32(0);
}
