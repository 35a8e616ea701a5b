/**
 * Builds legal programs: numbers their buffers, chooses their data, and obeys the rules of the IR (a step that stores to a
 * buffer may load it only through the same view; temporaries are written before they are read).
 */
import {
  BYTES,
  type BufferSpec,
  type ComputeType,
  type DType,
  type Instr,
  type Operand,
  type Program,
  type Step,
  type Store,
  type TypedArray,
  type View,
} from "@tiedlora/core";
import { randomArray } from "../prng.ts";
import { type BodyScope, decodeBody, type InstrGene, rowLevel } from "./body.ts";
import { denseView, loadView, storeView, type ViewGene } from "./views.ts";

/** A program with the contents of its input and output buffers and its scalars. */
export interface ProgramCase {
  readonly program: Program;
  readonly dtypes: readonly DType[];
  /** The contents of each buffer before the run; empty for temporaries. */
  readonly data: readonly TypedArray[];
  readonly scalars: Float64Array;
  /** Whether the data contain NaNs and infinities. */
  readonly special: boolean;
}

/** What a generated program may use: the backend's capabilities. */
export interface Limits {
  readonly dtypes: ReadonlySet<DType>;
  readonly maxOperands: number;
  /** The maximum number of elements of an iteration space. */
  readonly elements: number;
}

interface BufferDraft {
  kind: BufferSpec["kind"];
  dtype: DType;
  /** The number of elements that may be read. */
  length: number;
  bytes: number;
  aliasOf?: number;
}

export interface StoreGene {
  readonly value: number;
  readonly perRow: boolean;
  readonly dtype: number;
  /** Where to store: 0 an output, 1 a temporary, 2 in place over an operand that is loaded. */
  readonly kind: number;
  readonly view: ViewGene;
}

/** The maximum number of stores in one step. */
const STORES = 3;

export class ProgramBuilder {
  readonly limits: Limits;
  readonly #buffers: BufferDraft[] = [];
  readonly #steps: Step[] = [];
  readonly #scalars: number[] = [];
  /** The buffers that the current step touches, stores to, and (locked) may not store to. */
  #touched = new Set<number>();
  #stored = new Set<number>();
  #locked = new Set<number>();

  constructor(limits: Limits) {
    this.limits = limits;
  }

  begin(): void {
    this.#touched = new Set();
    this.#stored = new Set();
    this.#locked = new Set();
  }

  add(step: Step): void {
    this.#steps.push(step);
  }

  /** A new input that no step stores to. */
  input(dtype: DType, view: ViewGene, dims: readonly number[]): Operand {
    const { view: decoded, extent } = loadView(view, dims);
    const buffer = this.#new("input", dtype, extent + (view.offset % 2));
    this.#locked.add(buffer);
    return { buffer, dtype, view: this.#moving(decoded, view.offset) };
  }

  /** A new output, contiguous except for the order of its axes. */
  output(dtype: DType, view: ViewGene, dims: readonly number[]): Operand {
    const { view: decoded, extent } = denseView(view, dims);
    const buffer = this.#new("output", dtype, extent);
    this.#stored.add(buffer);
    return { buffer, dtype, view: decoded };
  }

  /** The same operand, read by a later step. */
  reuse(operand: Operand): Operand {
    this.#touched.add(operand.buffer);
    this.#locked.add(operand.buffer);
    return operand;
  }

  /** Decodes the body and the stores of a loop kernel or an epilogue. */
  body(
    outer: readonly number[],
    inner: readonly number[],
    genes: readonly InstrGene[],
    storeGenes: readonly StoreGene[],
    inEpilogue: boolean,
  ): { body: Instr[]; stores: Store[] } {
    const dims = [...outer, ...inner];
    const scope: BodyScope = {
      outer,
      inner,
      inEpilogue,
      dtypes: this.limits.dtypes,
      operand: (gene) => this.#operand(gene, dims),
      scalar: (value) => this.#scalars.push(value) - 1,
    };
    const body = decodeBody(genes, scope);
    const rows = rowLevel(body, outer.length);
    const stores: Store[] = [];
    for (const gene of storeGenes.slice(0, STORES)) {
      const value = body.length - 1 - (gene.value % body.length);
      const perRow = gene.perRow && inner.length > 0 && rows[value]!;
      const to = this.#target(gene, perRow ? outer : dims, perRow, body, body[value]!.dtype);
      if (to) stores.push({ to, value });
    }
    return { body, stores };
  }

  /** The finished program with its data; with `special`, a few floats are NaN or infinite. */
  finish(seed: number, special = false): ProgramCase {
    const buffers: BufferSpec[] = this.#buffers.map(({ kind, bytes, aliasOf }) =>
      aliasOf === undefined ? { kind, bytes } : { kind, bytes: this.#buffers[aliasOf]!.bytes, aliasOf },
    );
    const data = this.#buffers.map(({ kind, dtype, length, aliasOf }, i) =>
      randomArray(dtype, kind === "temp" || aliasOf !== undefined ? 0 : length, seed * 31 + i, special),
    );
    const program: Program = { buffers, scalars: this.#scalars.length, steps: this.#steps };
    const dtypes = this.#buffers.map((b) => b.dtype);
    return { program, dtypes, data, scalars: Float64Array.from(this.#scalars), special };
  }

  #new(kind: BufferDraft["kind"], dtype: DType, length: number): number {
    const index = this.#buffers.push({ kind, dtype, length, bytes: length * BYTES[dtype] }) - 1;
    this.#touched.add(index);
    return index;
  }

  /** An operand to load: a result of an earlier step, another view of an input, or a new input. */
  #operand(gene: InstrGene, dims: readonly number[]): Operand | null {
    const { view, extent } = loadView(gene.view, dims);
    const dtype = this.#dtype(gene.a);
    const fits = this.#buffers.flatMap((b, i) =>
      b.dtype === dtype &&
      b.aliasOf === undefined &&
      (b.kind === "input" || b.length >= extent) &&
      this.#mayTouch(i)
        ? [i]
        : [],
    );
    if (fits.length > 0 && gene.c % 2 === 1) {
      const buffer = fits[fits.length - 1 - (gene.b % fits.length)]!;
      this.#touched.add(buffer);
      const draft = this.#buffers[buffer]!;
      if (draft.kind === "input") {
        draft.length = Math.max(draft.length, extent);
        draft.bytes = draft.length * BYTES[dtype];
      }
      return { buffer, dtype, view: this.#moving(view, gene.view.offset) };
    }
    if (this.#touched.size >= this.limits.maxOperands - STORES) return null;
    return {
      buffer: this.#new("input", dtype, extent + (gene.b % 3)),
      dtype,
      view: this.#moving(view, gene.view.offset),
    };
  }

  /** Moves a part of the offset into a run-time scalar, for views that begin at the third element or later. */
  #moving(view: View, offset: number): View {
    if (offset < 2) return view;
    const slot = this.#scalars.push(1) - 1;
    return { ...view, offset: view.offset - 2, moving: [{ slot, factor: 2 }] };
  }

  #mayTouch(buffer: number): boolean {
    if (this.#stored.has(buffer)) return false;
    return this.#touched.has(buffer) || this.#touched.size < this.limits.maxOperands - STORES;
  }

  #dtype(choice: number): DType {
    const all: DType[] = ["f32", "f32", "f32", "f16", "bf16", "i32", "u32", "bool"];
    return all.filter((d) => this.limits.dtypes.has(d))[choice % all.length] ?? "f32";
  }

  #target(
    gene: StoreGene,
    dims: readonly number[],
    perRow: boolean,
    body: readonly Instr[],
    type: ComputeType,
  ): Operand | null {
    const wanted: readonly DType[] = type === "f32" ? ["f32", "f32", "f16", "bf16"] : [type];
    const allowed = wanted.filter((d) => this.limits.dtypes.has(d));
    if (gene.kind === 2 && !perRow) {
      const operand = this.#inPlace(gene, dims, body, allowed);
      if (operand) return operand;
    }
    if (this.#touched.size >= this.limits.maxOperands) return null;
    const dtype = allowed[gene.dtype % allowed.length]!;
    const isTemp = gene.kind === 1;
    const { view, extent } = isTemp ? denseView(gene.view, dims) : storeView(gene.view, dims);
    const buffer =
      (isTemp ? this.#reusableTemp(gene, dtype, extent) : null) ??
      this.#new(isTemp ? "temp" : "output", dtype, extent);
    this.#stored.add(buffer);
    return { buffer, dtype, view };
  }

  /** A temporary of an earlier step whose value is no longer needed, so that several values share it at different times. */
  #reusableTemp(gene: StoreGene, dtype: DType, extent: number): number | null {
    if (gene.value % 2 === 0) return null;
    const found = this.#buffers.findIndex(
      (b, i) => b.kind === "temp" && !this.#touched.has(i) && b.bytes >= extent * BYTES[dtype],
    );
    if (found < 0) return null;
    const draft = this.#buffers[found]!;
    draft.length = extent;
    draft.dtype = dtype;
    this.#touched.add(found);
    return found;
  }

  #inPlace(
    gene: StoreGene,
    dims: readonly number[],
    body: readonly Instr[],
    allowed: readonly DType[],
  ): Operand | null {
    const loads = body.flatMap((instr) => (instr.op === "load" ? [instr.from] : []));
    const candidates = loads.filter(
      ({ buffer, dtype, view }) =>
        allowed.includes(dtype) &&
        view.valid === undefined &&
        dims.every((n, axis) => n === 1 || view.strides[axis] !== 0) &&
        !this.#locked.has(buffer) &&
        !this.#stored.has(buffer) &&
        loads.every((other) => other.buffer !== buffer || other.view === view || sameView(other.view, view)),
    );
    const operand = candidates[gene.value % Math.max(1, candidates.length)];
    if (!operand) return null;
    const draft = this.#buffers[operand.buffer]!;
    const isAliased = this.#buffers.some((b) => b.aliasOf === operand.buffer);
    if (draft.kind === "input" && !isAliased) {
      this.#buffers.push({ ...draft, kind: "output", aliasOf: operand.buffer });
    }
    this.#stored.add(operand.buffer);
    return operand;
  }
}

function sameView(a: Operand["view"], b: Operand["view"]): boolean {
  return (
    a.offset === b.offset &&
    a.strides.every((s, d) => s === b.strides[d]) &&
    a.valid === b.valid &&
    a.moving === b.moving
  );
}
