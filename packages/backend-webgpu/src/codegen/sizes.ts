/**
 * The numbers in a kernel's text that follow from lengths: lengths, strides, offsets, bounds. The text names them; their values are in
 * the kernel's uniform buffer, so that kernels of one structure have one text, and one pipeline, whatever their sizes. Numbers of one role
 * that are equal share a name, so that compilers see that what is computed from them is equal too. Roles are kept apart, because
 * numbers that are equal at one length alone would otherwise make another text.
 */
import { product } from "@tiedlora/kernels";
import { WebGpuError } from "../errors.ts";
import type { Helpers } from "./helpers.ts";

/** Floats that stay in the text: they select cheaper code, and lengths rarely give them. */
const LITERAL_FLOATS: ReadonlySet<number> = new Set([0, 0.5, 1, 2, Infinity]);

/** Whether a float constant stays in the text. */
export const isLiteralFloat = (value: number): boolean =>
  Number.isNaN(value) || LITERAL_FLOATS.has(Math.abs(value));

/** How many numbers a kernel reads at run time; more stay in its text, because a uniform buffer holds 64 KiB on all devices. */
const MOST = 8192;

/** The most steps of a loop: its counter, which an invocation moves on by at most 256, is a u32. */
const MOST_STEPS = 2 ** 32 - 256;

export class Sizes {
  readonly #helpers: Helpers;
  readonly #names = new Map<string, string>();
  readonly #words: number[] = [];

  constructor(helpers: Helpers) {
    this.#helpers = helpers;
  }

  /** The values, as 32-bit words, in the order of their places. */
  get words(): readonly number[] {
    return this.#words;
  }

  /** A u32 expression for an integer; negative ones wrap around. */
  of(role: string, value: number): string {
    return this.#name(role, value >>> 0);
  }

  /** The same for the number of steps of a loop. Throws a WebGpuError if there are too many to count. */
  steps(role: string, value: number): string {
    if (value > MOST_STEPS) {
      throw new WebGpuError(
        `a reduction in ${value} steps, of one or four elements each, but kernels of this backend take at most ${MOST_STEPS}: ` +
          "reduce fewer axes at once, one call after another",
      );
    }
    return this.of(role, value);
  }

  /** An f32 expression for a number. */
  float(role: string, value: number): string {
    return `bitcast<f32>(${this.#name(role, bitsOf(value))})`;
  }

  /** A u32 expression for a stride; 1 and -1 are part of the structure. */
  stride(axis: string, value: number): string {
    if (Math.abs(value) === 1) return `${value >>> 0}u`;
    return this.of(`stride${axis}`, value);
  }

  /**
   * A u32 expression for the quotient of `x` and a number, where x is less than 2^31. Division by what compilers do not know is slow,
   * so it is a multiplication by the reciprocal, scaled by a power of two (Granlund and Montgomery, "Division by invariant integers using
   * multiplication", 1994).
   */
  quotient(x: string, role: string, value: number): string {
    const [factor, shift] = reciprocal(value);
    const [m, s] = [this.#name(`${role} factor`, factor), this.#name(`${role} shift`, shift)];
    return `(${this.#helpers.call("highWord", 1, [`(${x}) << 1u`, m])} >> ${s})`;
  }

  /**
   * Statements that split the linear index `from`, which is less than their product, into indices along axes of these lengths; `to`
   * names them. Indices are `let` statements. The product may be up to 2^32: where it exceeds 2^31, the code divides.
   */
  split(
    from: string,
    lengths: readonly number[],
    to: (axis: number) => string,
    role: (axis: number) => string,
  ): string[] {
    const lines: string[] = [];
    let rest = from;
    for (let d = lengths.length - 1; d > 0; d--) {
      const above = `${to(d)}_above`;
      const length = this.of(role(d), lengths[d]!);
      const isSmall = product(lengths.slice(0, d + 1)) <= 2 ** 31;
      lines.push(
        `let ${above} = ${isSmall ? this.quotient(rest, role(d), lengths[d]!) : `${rest} / ${length}`};`,
      );
      lines.push(`let ${to(d)} = ${rest} - ${above} * ${length};`);
      rest = above;
    }
    if (lengths.length > 0) lines.push(`let ${to(0)} = ${rest};`);
    return lines;
  }

  #name(role: string, word: number): string {
    const key = `${role}:${word}`;
    let name = this.#names.get(key);
    if (name === undefined && this.#words.length === MOST) return `${word}u`;
    if (name === undefined) this.#names.set(key, (name = `${PREFIX}${this.#words.push(word) - 1}`));
    return name;
  }

  /** The lines of an entry point, preceded by statements that read the sizes that they name; `first` is the place of the first word. */
  readOnce(lines: readonly string[], first: number): string[] {
    const used = new Set<string>();
    for (const line of lines) {
      if (!line.includes(PREFIX)) continue; // most lines name none, and this is much faster
      for (const name of line.match(NAMES) ?? []) used.add(name);
    }
    const reads = [...used].map((name) => `let ${name} = ${placeOf(name, first)};`);
    return [...reads, ...lines];
  }

  /** The text of a function with the sizes read where it names them: there are no constants that all functions see. */
  readInPlace(text: string, first: number): string {
    return text.includes(PREFIX) ? text.replace(NAMES, (name) => placeOf(name, first)) : text;
  }
}

const PREFIX = "size";
const NAMES = /\bsize\d+\b/g;

function placeOf(name: string, first: number): string {
  return wordAt(first + Number(name.slice(PREFIX.length)));
}

/** The expression for word `i` of a kernel's uniform buffer. */
export const wordAt = (i: number): string => `P[${i >> 2}].${"xyzw"[i & 3]}`;

/** The factor and shift for which floor(n / d) = floor(2 n · factor / 2^32) >> shift, for 0 <= n < 2^31. */
export function reciprocal(d: number): readonly [factor: number, shift: number] {
  const shift = d <= 1 ? 0 : 32 - Math.clz32(d - 1);
  return [Number((1n << BigInt(31 + shift)) / BigInt(Math.max(d, 1))) + 1, shift];
}

const word = new DataView(new ArrayBuffer(4));

/** The bits of a number as f32. */
function bitsOf(value: number): number {
  word.setFloat32(0, value);
  return word.getUint32(0);
}
