/**
 * Passes over the inner axes. Reductions that do not depend on one another share a pass; a last pass does the stores per
 * element. In row mode, costly values that a later pass needs again are saved to scratch memory.
 */
import { type Instr, operandsOf } from "@tiedlora/kernels";
import { at } from "../../assert.ts";
import { isCostly } from "./cost.ts";
import type { Access, Nest, NestStore } from "./nest.ts";
import { levels } from "./levels.ts";
import { closure, SCRATCH } from "./nest.ts";
import type { Schedule } from "./schedule.ts";

export interface Pass {
  readonly reduces: readonly number[];
  readonly stores: readonly NestStore[];
  /** The instructions whose values the pass reduces or stores. */
  readonly roots: readonly number[];
  /** All instructions that `roots` depend on, ascending, without those that only earlier reductions or saved values depend on. */
  readonly needed: readonly number[];
  /** Values to save for later passes, and saved ones to load. */
  readonly save: Map<number, Access>;
  readonly restore: Map<number, Access>;
}

/** The most bytes of scratch memory for one saved value, which should stay in the first two cache levels. */
export const MAX_SAVED_BYTES: number = 128 * 1024;

export interface PassPlan {
  readonly passes: readonly Pass[];
  readonly scratchBytes: number;
}

/** `perElement` tells which instructions differ from element to element of a row. */
export function planPasses(nest: Nest, plan: Schedule, perElement: (i: number) => boolean): PassPlan {
  const { body } = nest;
  const level = levels(body);
  const live = closure(
    body,
    nest.stores.map((s) => s.value),
  ).filter((i) => body[i]?.op === "reduce");
  const stores = nest.stores.filter((store) => !store.row);
  const groups = new Map<number, number[]>();
  for (const r of live) {
    const l = at(level, r, "instruction");
    groups.set(l, [...(groups.get(l) ?? []), r]);
  }
  const passes: Pass[] = [...groups]
    .sort(([a], [b]) => a - b)
    .map(([, reduces]) => makePass(body, reduces, []));
  if (stores.length > 0) passes.push(makePass(body, [], stores));
  return plan.mode === "row" ? withSavedValues(nest, plan, passes, perElement) : { passes, scratchBytes: 0 };
}

function makePass(body: readonly Instr[], reduces: readonly number[], stores: readonly NestStore[]): Pass {
  const roots = [
    ...reduces.map((r) => at(operandsOf(at(body, r, "instruction")), 0, "operand")),
    ...stores.map((s) => s.value),
  ];
  const needed = closure(body, roots, (i) => body[i]?.op === "reduce" && !roots.includes(i));
  return { reduces, stores, roots, needed, save: new Map(), restore: new Map() };
}

/** Marks the costly values that an earlier pass computes and a later pass would compute again. */
function withSavedValues(
  nest: Nest,
  plan: Schedule,
  passes: readonly Pass[],
  perElement: (i: number) => boolean,
): PassPlan {
  const { body } = nest;
  const { bytes, lengths } = scratchLayout(plan);
  if (passes.length < 2 || bytes > MAX_SAVED_BYTES) return { passes, scratchBytes: 0 };
  const saved = new Map<number, Access>();
  const out: Pass[] = [];
  for (const pass of passes) {
    const earlier = (i: number): Pass | undefined => out.find((p) => p.needed.includes(i));
    const shared = new Set(pass.needed.filter((i) => perElement(i) && earlier(i) !== undefined));
    const isFrontier = (i: number): boolean =>
      pass.roots.includes(i) ||
      pass.needed.some((user) => !shared.has(user) && operandsOf(at(body, user, "instruction")).includes(i));
    for (const i of shared) {
      const costly = closure(body, [i], (x) => body[x]?.op === "reduce").some((x) => {
        return perElement(x) && isCostly(at(body, x, "instruction"));
      });
      if (!isFrontier(i) || !costly) continue;
      const access = saved.get(i) ?? scratchAccess(saved.size * bytes, lengths, body[i]?.dtype);
      saved.set(i, access);
      earlier(i)?.save.set(i, access);
      pass.restore.set(i, access);
    }
    const known = (i: number): boolean => body[i]?.op === "reduce" && !pass.roots.includes(i);
    const direct = closure(body, pass.roots, (i) => known(i) || pass.restore.has(i));
    const needed = [...new Set([...direct, ...reached(body, direct, pass)])].sort((a, b) => a - b);
    out.push({ ...pass, needed });
  }
  return { passes: out, scratchBytes: saved.size * bytes };
}

/** The restored values that `direct` reads, or that are roots themselves. */
function reached(body: readonly Instr[], direct: readonly number[], pass: Pass): number[] {
  const read = new Set([...pass.roots, ...direct.flatMap((i) => operandsOf(at(body, i, "instruction")))]);
  return [...pass.restore.keys()].filter((i) => read.has(i));
}

/** How a value is kept in scratch memory: for the indices of which axes, and in how many bytes. */
export interface ScratchLayout {
  readonly lengths: readonly number[];
  readonly bytes: number;
}

/** In mode "row", values of a row are kept; in mode "column", accumulators along the vector axis. */
export function scratchLayout({ mode, axes, vector }: Schedule): ScratchLayout {
  const lengths = axes.map(({ inner, length }, a) => ((mode === "row" ? inner : a === vector) ? length : 1));
  return { lengths, bytes: 4 * lengths.reduce((a, b) => a * b, 1) };
}

/** Scratch memory, row-major, for one value per index of the axes with these `lengths`. */
export function scratchAccess(
  byteOffset: number,
  lengths: readonly number[],
  dtype: string | undefined,
): Access {
  const strides: number[] = [];
  let stride = 1;
  for (let a = lengths.length - 1; a >= 0; a--) {
    const length = at(lengths, a, "axis");
    strides[a] = length === 1 ? 0 : stride;
    stride *= length;
  }
  const type = dtype === "i32" || dtype === "u32" || dtype === "bool" ? dtype : "f32";
  return { argument: SCRATCH, dtype: type, offset: byteOffset / 4, strides, valid: lengths.map(() => null) };
}
