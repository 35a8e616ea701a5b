/**
 * The numbers in a nest's code that follow from lengths. Two nests of one form have the same code but for these numbers: whatever is not
 * here has to be in the key of `form.ts`.
 */
import { BYTES, type Instr } from "@tiedlora/kernels";
import { getOrCreate } from "@tiedlora/kernels/collections";
import { at } from "../../assert.ts";
import type { Expr, Int } from "../assembler.ts";
import { bitsOf, type Numbers, type Sizes } from "../sizes.ts";
import type { Dependences } from "./dependences.ts";
import { addStart, startOf } from "./load-store.ts";
import { type Access, type Nest, strideAlong } from "./nest.ts";
import type { Pass } from "./passes.ts";
import type { Schedule } from "./schedule.ts";

/**
 * The accumulators of a fold along the lanes: vector `k` of a row goes into accumulator `k` modulo this number, however far the loop
 * is unrolled. So the order of a sum depends on lengths alone, and not on what else the kernel computes.
 */
const ROW_ACCUMULATORS = 4;

/** What the loops of a nest compute, and how. */
export interface Loops {
  readonly nest: Nest;
  readonly plan: Schedule;
  readonly dependences: Dependences;
  readonly passes: readonly Pass[];
  /** By reduction: where its accumulators are, if they are in memory. */
  readonly columnSums: ReadonlyMap<number, Access>;
  /** Scratch memory per thread. */
  readonly scratchBytes: number;
  /** Vectors of accumulators per reduction in mode "row", and how far the last vector of a row is from the first of them. */
  readonly accumulators: number;
  readonly rotation: number;
}

/** All operands in memory, in order: loads, stores, saved values, accumulators. */
export function accessesOf({ nest, passes, columnSums }: Loops): Access[] {
  const kept = [...passes.flatMap((pass) => [...pass.save.values()]), ...columnSums.values()];
  const all = [...nest.loads.filter((a) => a !== null), ...nest.stores.map((s) => s.to), ...kept];
  return [...new Set(all)];
}

/** Whether the stride along the vector axis is part of the structure: 0, 1 or -1. */
export const isStructural = (stride: number): boolean => stride >= -1 && stride <= 1;

export const innerCount = ({ inner, axes }: Schedule): number =>
  inner.reduce((n, a) => n * at(axes, a, "axis").length, 1);

/** Vectors of accumulators per reduction in mode "row", and how far the last vector of a row is from the first of them. */
export function accumulatorsOf(plan: Schedule): Pick<Loops, "accumulators" | "rotation"> {
  const folded = vectorsPerRow(plan);
  const accumulators = Math.max(1, Math.min(ROW_ACCUMULATORS, folded));
  return { accumulators, rotation: folded % accumulators };
}

/** The whole vectors of a row in mode "row": a segment's remainder is folded element by element. */
function vectorsPerRow(plan: Schedule): number {
  const { segments } = plan;
  let along = 0;
  for (let s = 1; s < segments.length; s++) along += Math.floor((segments[s]! - segments[s - 1]!) / 4);
  return innerCount(plan) * along;
}

/** Adds the numbers of a nest with these operands in memory (`accessesOf`), each name preceded by `prefix`. */
export function addLoopNumbers(
  numbers: Numbers,
  { nest, plan }: Pick<Loops, "nest" | "plan">,
  accesses: readonly Access[],
  prefix = "",
): void {
  plan.axes.forEach(({ length }, a) => numbers.add(prefix, length, "n", a));
  plan.segments.forEach((end, s) => numbers.add(prefix, end, "g", s));
  numbers.add(prefix, innerCount(plan), "inner");
  for (let j = 0; j < accesses.length; j++) {
    const { strides, valid, dtype } = accesses[j]!;
    const name = accessName(prefix, j);
    const bytes = BYTES[dtype];
    addStart(numbers, name, accesses[j]!, bytes);
    for (let a = 0; a < strides.length; a++) {
      const stride = strides[a]!;
      if (stride === 0) continue;
      numbers.add(name, stride * bytes, "s", a);
      numbers.add(name, -at(plan.axes, a, "axis").length * stride * bytes, "c", a);
    }
    for (let a = 0; a < valid.length; a++) {
      const range = valid[a] ?? null;
      if (range === null) continue;
      numbers.add(name, range[0], "v", a);
      numbers.add(name, range[1] - range[0], "w", a);
    }
  }
  nest.body.forEach((instr, i) => {
    if (instr.op === "const" && isNumber(instr)) numbers.add(prefix, bitsOf(instr.value), "k", i);
  });
}

const accessNames = new Map<string, string[]>();

/** What the names of an operand's numbers begin with. */
function accessName(prefix: string, j: number): string {
  const names = getOrCreate(accessNames, prefix, () => []);
  while (names.length <= j) names.push(`${prefix}a${names.length}`);
  return names[j]!;
}

/** Whether an instruction is a float constant: such as 1 / n of a mean, they follow from lengths. */
export const isNumber = (instr: Instr): boolean => instr.op === "const" && instr.dtype === "f32";

/** The numbers as code uses them: constants, or locals. */
export class LoopSizes {
  readonly #sizes: Sizes;
  readonly #plan: Schedule;
  readonly #prefix: string;
  readonly #names: ReadonlyMap<Access, string>;

  constructor(sizes: Sizes, loops: Loops, prefix = "") {
    this.#sizes = sizes;
    this.#plan = loops.plan;
    this.#prefix = prefix;
    this.mostVectors =
      loops.plan.mode === "row" && loops.accumulators < ROW_ACCUMULATORS ? loops.accumulators : Infinity;
    this.#names = new Map(accessesOf(loops).map((access, j) => [access, accessName(prefix, j)]));
  }

  /** No part of the vector axis has more vectors. */
  readonly mostVectors: number;

  get isGeneral(): boolean {
    return this.#sizes.isGeneral;
  }

  length(axis: number): Int {
    return this.#sizes.int(`${this.#prefix}n${axis}`);
  }

  /** The flat length of the inner axes other than the vector axis; 1 is part of the structure. */
  innerCount(): Int {
    return innerCount(this.#plan) === 1 ? 1 : this.#sizes.int(`${this.#prefix}inner`);
  }

  /** Segment boundary `s`; the first is 0. */
  segment(s: number): Int {
    return s === 0 ? 0 : this.#sizes.int(`${this.#prefix}g${s}`);
  }

  /** Bytes from an element to the one `count` indices on. */
  bytes(access: Access, axis: number, count = 1): Int {
    const stride = strideAlong(access, axis);
    if (stride === 0 || (axis === this.#plan.vector && isStructural(stride))) {
      return count * stride * BYTES[access.dtype];
    }
    return this.#sizes.times(`${this.#name(access)}s${axis}`, count);
  }

  /** Bytes back from the end of an axis to its start. */
  carry(access: Access, axis: number): Int {
    return strideAlong(access, axis) === 0 ? 0 : this.#sizes.int(`${this.#name(access)}c${axis}`);
  }

  /** The first valid index of an axis, and how many are valid. */
  valid(access: Access, axis: number): readonly [from: Int, count: Int] {
    const name = this.#name(access);
    return [this.#sizes.int(`${name}v${axis}`), this.#sizes.int(`${name}w${axis}`)];
  }

  /** The address of an operand's first element in the buffer at `base`; `scalar` gives the address of a run-time number. */
  start(access: Access, base: Expr, scalar: (slot: number) => Expr): Expr {
    return startOf(this.#sizes, this.#name(access), access.moving, base, scalar);
  }

  /** The value of float constant `i` in all lanes; null if it is to be a constant of the code. */
  number(i: number): Expr | null {
    return this.isGeneral ? this.#sizes.lanes(`${this.#prefix}k${i}`) : null;
  }

  #name(access: Access): string {
    const name = this.#names.get(access);
    if (name === undefined)
      throw new Error("a bug in the CPU backend: an operand has no numbers; please report it");
    return name;
  }
}
