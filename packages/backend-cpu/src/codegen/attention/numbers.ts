/**
 * The numbers in attention's code that follow from lengths, and the key of all else: what is not in one of them has to be in the other.
 * Heads, their width and the strides of columns are part of the structure.
 */
import { BYTES, type LibraryCall, type Operand } from "@tiedlora/kernels";
import type { Fn, Int, Local } from "../assembler.ts";
import { addStart, slotsOf } from "../loops/load-store.ts";
import { Numbers, Sizes } from "../sizes.ts";
import { byteStride, COLUMN, type Geometry, ROW } from "./geometry.ts";

type Call = Extract<LibraryCall, { name: "attention" | "attentionGrad" }>;

/** A call whose code is emitted, for its own sizes or for all. */
export interface AttentionStep {
  readonly g: Geometry;
  readonly fma: boolean;
  readonly numbers: Numbers;
  /** What the numbers of an operand are called. */
  readonly names: ReadonlyMap<Operand, string>;
  readonly isGeneral: boolean;
  /** Where the numbers are among the step's arguments. */
  readonly at: number;
}

/** All operands of a call, each an object of its own. */
export function distinct<C extends Call>(call: C): C {
  const copy = (operand: Operand): Operand => ({ ...operand });
  return { ...call, inputs: call.inputs.map(copy), outputs: call.outputs.map(copy) };
}

export function namesOf({ inputs, outputs }: Call): Map<Operand, string> {
  return new Map([...inputs, ...outputs].map((operand, i) => [operand, `operand${i}`]));
}

/** The numbers of a call: those of its operands, of its blocks, and the offsets of `panels` in scratch memory. */
export function attentionNumbers(
  g: Geometry,
  names: ReadonlyMap<Operand, string>,
  panels: Readonly<Record<string, number>>,
  more: Readonly<Record<string, number>>,
): Numbers {
  const { q, kv } = g.params;
  const numbers = new Numbers({
    q,
    kv,
    shift: kv - q,
    queries: g.queries,
    keyDepth: g.keyDepth,
    scoreStride: g.scoreStride,
    ...more,
  });
  for (const [name, offset] of Object.entries(panels)) numbers.add(`panel ${name}`, offset);
  for (const [{ view, dtype }, name] of names) {
    addStart(numbers, name, view, BYTES[dtype]);
    view.strides
      .slice(0, COLUMN)
      .forEach((stride, axis) => numbers.add(`${name}s${axis}`, stride * BYTES[dtype]));
  }
  return numbers;
}

export function attentionKey(
  call: Call,
  { widthStride, params }: Geometry,
  argumentOf: (buffer: number) => number,
): string {
  const { heads, kvHeads, d, causal, scale, bias } = params;
  const operand = ({ buffer, dtype, view }: Operand): unknown => [
    argumentOf(buffer),
    dtype,
    slotsOf(view.moving),
    view.strides[COLUMN] ?? null,
  ];
  const operands = [...call.inputs, ...call.outputs].map(operand);
  return JSON.stringify([call.name, widthStride, heads, kvHeads, d, causal, String(scale), bias, operands]);
}

/** The numbers as one function sees them. */
export class AttentionSizes {
  readonly sizes: Sizes;
  readonly #names: ReadonlyMap<Operand, string>;

  constructor(f: Fn, args: Local, { numbers, names, isGeneral, at: place }: AttentionStep) {
    this.sizes = new Sizes(f, numbers, isGeneral ? args : null, place);
    this.#names = names;
  }

  int(name: string): Int {
    return this.sizes.int(name);
  }

  nameOf(operand: Operand): string {
    const name = this.#names.get(operand);
    if (name === undefined)
      throw new Error("a bug in the CPU backend: an operand has no numbers; please report it");
    return name;
  }

  /** Bytes from one index of an axis to the next. */
  stride(operand: Operand, axis: number): Int {
    if (axis === COLUMN) return byteStride(operand, COLUMN);
    return this.int(`${this.nameOf(operand)}s${axis}`);
  }

  /** Bytes from row to row and from column to column of an operand. */
  rowAndColumn(operand: Operand): [row: Int, column: Int] {
    return [this.stride(operand, ROW), this.stride(operand, COLUMN)];
  }
}
