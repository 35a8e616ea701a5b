/** The bindings of one kernel: the storage buffers that show its operands, and the uniform buffer with its run-time numbers and sizes. */
import type { Operand } from "@tiedlora/kernels";
import { Elements, elementType } from "./elements.ts";
import type { Helpers } from "./helpers.ts";
import { Sizes, wordAt } from "./sizes.ts";
import { type BoundOperand, boundOf, show, type Shown, type Use } from "./shown.ts";
import { type Binding, ceilDiv, HEADER, type Kernel, range, type ScalarUse, type Target } from "./target.ts";

/** All operands are requested at construction; rendering comes after that. */
export class Bindings {
  readonly helpers: Helpers;
  /** Renders loads and stores. */
  readonly elements: Elements;
  /** The numbers that follow from lengths. */
  readonly sizes: Sizes;
  readonly #bound = new Map<Operand, BoundOperand>();
  readonly #shown: Shown[] = [];
  readonly #scalars: ScalarUse[] = [];

  constructor(uses: readonly Use[], bufferBytes: readonly number[], target: Target, helpers: Helpers) {
    this.helpers = helpers;
    this.elements = new Elements(helpers);
    this.sizes = new Sizes(helpers);
    const byBuffer = new Map<number, Use[]>();
    for (const use of uses) {
      const { buffer } = use.operand;
      byBuffer.set(buffer, [...(byBuffer.get(buffer) ?? []), use]);
    }
    for (const [buffer, own] of byBuffer) {
      const shown = show(buffer, own, bufferBytes[buffer]!, this.count, target);
      this.#shown.push(shown);
      for (const use of own) this.#bound.set(use.operand, boundOf(use, shown));
    }
  }

  /** Storage bindings used. */
  get count(): number {
    return this.#shown.reduce((n, s) => n + s.parts, 0);
  }

  of(operand: Operand): BoundOperand {
    const bound = this.#bound.get(operand);
    if (!bound) {
      throw new Error(
        "a bug in the WebGPU backend: a kernel uses an operand that it does not bind; please report it",
      );
    }
    return bound;
  }

  /** A u32 expression for where an operand's view starts, from the start of what is bound; undefined for 0. */
  start(operand: Operand): string | undefined {
    const { offset } = this.of(operand);
    const terms = (operand.view.moving ?? []).map(
      ({ slot, factor }) =>
        `${this.scalar({ slot, dtype: "i32" })} * ${this.sizes.of("moving factor", factor)}`,
    );
    const fixed = offset === 0 ? [] : [this.sizes.of("offset", offset)];
    return terms.length + fixed.length === 0 ? undefined : [...fixed, ...terms].join(" + ");
  }

  /** The expression for a run-time number, as its raw 32-bit word. */
  scalar(use: ScalarUse): string {
    let i = this.#scalars.findIndex((s) => s.slot === use.slot && s.dtype === use.dtype);
    if (i < 0) i = this.#scalars.push(use) - 1;
    return wordAt(HEADER.length + i);
  }

  #list(): Binding[] {
    return this.#shown.flatMap((s) =>
      range(s.parts).map((p) => ({
        buffer: s.buffer,
        write: s.write,
        offset: s.start + p * s.window,
        bytes: Math.min(s.window, s.bytes - p * s.window),
      })),
    );
  }

  /** What a kernel says of its bindings. Call this and what follows last, when all scalars and sizes are known. */
  describe(): Pick<Kernel, "bindings" | "scalars" | "sizes"> {
    return { bindings: this.#list(), scalars: this.#scalars, sizes: this.sizes.words };
  }

  /** The lines of the entry point, preceded by statements that define the sizes that they name. */
  entry(lines: readonly string[]): string[] {
    return this.sizes.readOnce(lines, this.#firstSize);
  }

  /** The text of functions, with the sizes that they name. */
  functions(text: string): string {
    return this.sizes.readInPlace(text, this.#firstSize);
  }

  get #firstSize(): number {
    return HEADER.length + this.#scalars.length;
  }

  /** Declarations of all bindings. */
  declare(): string {
    const storage = this.#shown.flatMap((s) =>
      range(s.parts).map((p) => {
        const [n, mode] = [s.first + p, s.write ? "read_write" : "read"];
        return `@group(0) @binding(${n}) var<storage, ${mode}> data${n}: array<${elementType(s)}>;`;
      }),
    );
    const usesF16 = this.helpers.useF16 || this.#shown.some((s) => s.kind === "f16");
    const words = ceilDiv(this.#firstSize + this.sizes.words.length, 4);
    const uniform = `@group(0) @binding(${this.count}) var<uniform> P: array<vec4<u32>, ${words}>;`;
    return [...(usesF16 ? ["enable f16;"] : []), ...storage, uniform].join("\n");
  }
}
