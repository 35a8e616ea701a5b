/**
 * The parts that all kernels of a product share: its size as they see it, the reading of its factors, its epilogue, and the
 * text around a kernel's own code. Kernels differ in how they compute finished numbers from factors.
 */
import { product } from "@tiedlora/kernels";
import { allOf } from "../arithmetic.ts";
import { Bindings } from "../bindings.ts";
import { modeOf } from "../shown.ts";
import { BodyWriter, usesOf } from "../body.ts";
import { assemble, type Entry } from "../entry.ts";
import { Helpers } from "../helpers.ts";
import type { Sizes } from "../sizes.ts";
import { ceilDiv, type Kernel, type Target } from "../target.ts";
import { batchIndices, FactorReader, sidesOf, type Term, termsOf, usesOfSide } from "./factors.ts";
import type { Product } from "./product.ts";

export class MatmulFrame {
  readonly rows: number;
  readonly columns: number;
  readonly batches: number;
  readonly terms: readonly Term[];
  /** The depth of the deepest term. */
  readonly depth: number;
  readonly factors: FactorReader;
  readonly #p: Product;
  readonly #swap: boolean;
  readonly #target: Target;
  readonly #bindings: Bindings;
  /** The axis of the columns, if the epilogue can process four neighboring columns at once. */
  readonly #vectorAxis: number | undefined;
  /** The lengths of the epilogue's axes. */
  readonly #lengths: readonly number[];

  /** With `swap`, rows and columns are exchanged, so that four rows of the product, not four columns, are processed at once. */
  constructor(p: Product, swap: boolean, bufferBytes: readonly number[], target: Target) {
    this.#p = p;
    this.#swap = swap;
    this.#target = target;
    this.#lengths = [...p.batch, p.m, p.n];
    this.rows = swap ? p.n : p.m;
    this.columns = swap ? p.m : p.n;
    this.batches = product(p.batch);
    this.terms = termsOf(p, swap);
    this.depth = Math.max(...p.k);
    this.#vectorAxis = this.#chooseVectorAxis();
    const uses = [
      ...sidesOf(this.terms).flatMap(usesOfSide),
      ...usesOf({ ...p.epilogue, lengths: this.#lengths, vectorAxis: this.#vectorAxis }),
    ];
    this.#bindings = new Bindings(uses, bufferBytes, target, new Helpers());
    this.factors = new FactorReader(p.batch, this.terms, this.#bindings, target);
  }

  /** The numbers that follow from lengths. */
  get sizes(): Sizes {
    return this.#bindings.sizes;
  }

  /**
   * The number of workgroups for tiles of so many rows and columns, and the statements that find one's tile: they define `b`, `row` and
   * `column`.
   */
  tiles(rows: number, columns: number): { readonly groups: number; readonly text: string[] } {
    const isBatched = this.#p.batch.length > 0;
    const grid = [
      ...(isBatched ? [this.batches] : []),
      ceilDiv(this.rows, rows),
      ceilDiv(this.columns, columns),
    ];
    const names = [...(isBatched ? ["b"] : []), "tileRow", "tileColumn"];
    const name = (d: number): string => names[d]!;
    return {
      groups: product(grid),
      text: [
        ...this.sizes.split("group", grid, name, name),
        ...(isBatched ? [] : ["let b = 0u;"]),
        `let row = tileRow * ${rows}u;`,
        `let column = tileColumn * ${columns}u;`,
      ],
    };
  }

  /** An expression for the depth of a term. */
  depthOf(term: Term): string {
    return this.sizes.steps(`depth${this.terms.indexOf(term)}`, term.depth);
  }

  #chooseVectorAxis(): number | undefined {
    if (this.columns % 4 !== 0) return undefined;
    const axis = this.#p.batch.length + (this.#swap ? 0 : 1);
    const uses = usesOf({ ...this.#p.epilogue, lengths: this.#lengths, vectorAxis: axis });
    return uses.some((use) => modeOf(use) === "vector") ? axis : undefined;
  }

  /** A call that applies the epilogue to four finished columns of a row; row and columns may be beyond the last. */
  finish(row: string, column: string, value: string): string {
    return `finish(b, ${row}, ${column}, ${value});`;
  }

  /** The function that `finish` calls: the epilogue. */
  #finishFunctions(): string {
    const { epilogue, batch } = this.#p;
    const [row, column] = this.#swap ? ["n", "m"] : ["m", "n"];
    const writer = this.#epilogueWriter();
    const live = writer.needed(
      epilogue.stores.map((s) => s.value),
      () => true,
    );
    const statements = [
      ...batchIndices(batch, this.sizes),
      ...live.map((i) => writer.compute(i)),
      ...epilogue.stores.map((s) => writer.store(s)),
    ].map((line) => `  ${line}`);
    const inside = allOf([
      `${row} < ${this.sizes.of("rows", this.rows)}`,
      `${column} < ${this.sizes.of("columns", this.columns)}`,
    ]);
    const guard = `  if (!(${inside})) { return; }`;
    const define = (name: string, type: string): string =>
      `fn ${name}(b: u32, ${row}: u32, ${column}: u32, value: ${type}) {\n${guard}\n${statements.join("\n")}\n}`;
    if (this.#vectorAxis !== undefined) return define("finish", "vec4<f32>");
    return `${define("finishOne", "f32")}
fn finish(b: u32, row: u32, column: u32, value: vec4<f32>) {
  for (var c = 0u; c < 4u + P[0].x; c++) { finishOne(b, row, column + c, value[c]); }
}`;
  }

  #epilogueWriter(): BodyWriter {
    const { epilogue, origin, batch } = this.#p;
    const space = {
      ...epilogue,
      lengths: this.#lengths,
      outerRank: this.#lengths.length,
      origin,
      vectorAxis: this.#vectorAxis,
      indices: [...batch.map((_, d) => `b${d}`), "m", "n"],
    };
    return new BodyWriter(space, this.#bindings, "value");
  }

  /** The finished kernel; see `Entry`. */
  kernel(
    main: readonly string[],
    shape: Omit<Entry, "label" | "functions" | "main"> & { readonly variant: string },
  ): Kernel {
    const functions = [...this.factors.functions(), this.#finishFunctions()];
    const size = `matmul [${this.#lengths.join(",")}] k ${this.#p.k.join("+")}${this.#swap ? " swapped" : ""}`;
    const label = `${size} (${shape.variant}${this.#target.matmulPrecision === "f16" ? " f16" : ""})`;
    return assemble({ ...shape, label, functions, main }, this.#bindings, this.#target);
  }
}
