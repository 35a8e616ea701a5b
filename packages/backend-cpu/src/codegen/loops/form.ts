/**
 * The form of a scheduled nest: its key, and which operands are in scratch memory. Passes over the loops follow from the key, but for
 * numbers. So they are planned where code is emitted, and the first time that a form is met; a form with other lengths is not planned again.
 */
import type { DType, Instr } from "@tiedlora/kernels";
import { sameInstr } from "@tiedlora/kernels/alike";
import { planLoops } from "./emit.ts";
import { slotsOf } from "./load-store.ts";
import { type Access, type Nest, SCRATCH, strideAlong } from "./nest.ts";
import { accessesOf, accumulatorsOf, innerCount, isNumber, isStructural, type Loops } from "./numbers.ts";
import { MAX_SAVED_BYTES, type ScratchLayout, scratchAccess, scratchLayout } from "./passes.ts";
import type { Schedule } from "./schedule.ts";

/** A nest whose loops are planned if need be. */
export interface Form {
  /** Equal for nests whose code differs in numbers alone; see `addLoopNumbers`. */
  readonly key: string;
  /** All operands in memory, in the order of `accessesOf`. */
  readonly accesses: readonly Access[];
  /** Scratch memory per thread. */
  readonly scratchBytes: number;
  readonly loops: () => Loops;
}

/** The values that a form keeps in scratch memory, in the order of `accessesOf`; each has room for one `ScratchLayout`. */
type Kept = readonly { readonly place: number; readonly dtype: DType }[];

/** The most forms, and bodies of one length, that are remembered. */
const MOST = 4096;
const known = new Map<string, Kept>();

export function formOf(nest: Nest, plan: Schedule): Form {
  const layout = scratchLayout(plan);
  const key = keyOf(nest, plan, layout);
  let kept = known.get(key);
  let planned: Loops | null = null;
  if (kept === undefined) {
    planned = planLoops(nest, plan);
    const own = accessesOf(planned).filter(({ argument }) => argument === SCRATCH);
    kept = own.map(({ offset, dtype }) => ({ place: (4 * offset) / layout.bytes, dtype }));
    if (known.size >= MOST) known.clear();
    known.set(key, kept);
  }
  const inMemory = [...nest.loads.filter((access) => access !== null), ...nest.stores.map(({ to }) => to)];
  const scratch = kept.map(({ place, dtype }) => scratchAccess(place * layout.bytes, layout.lengths, dtype));
  return {
    key,
    accesses: [...inMemory, ...scratch],
    scratchBytes: kept.length * layout.bytes,
    loops: () => planned ?? planLoops(nest, plan),
  };
}

const bit = (is: boolean): number => (is ? 1 : 0);
const bits = <T>(list: readonly T[], is: (one: T) => boolean): number =>
  list.reduce((sum, one) => 2 * sum + bit(is(one)), 1);

/** Whatever code and passes depend on apart from the numbers. */
function keyOf(nest: Nest, plan: Schedule, layout: ScratchLayout): string {
  const { accumulators, rotation } = accumulatorsOf(plan);
  const starts = plan.segments.slice(0, -1);
  const accessKey = (access: Access): string => {
    const vector = strideAlong(access, plan.vector);
    const along = access.valid[plan.vector] ?? null;
    const parts = along && bits(starts, (start) => start >= along[0] && start < along[1]);
    const strides = bits(access.strides, (stride) => stride !== 0);
    const valid = bits(access.valid, (range) => range !== null);
    const step = isStructural(vector) ? vector : "n";
    return `${access.argument} ${access.dtype} ${slotsOf(access.moving)} ${strides} ${valid} ${step} ${parts ?? ""}`;
  };
  const loads = nest.loads.map((access) => (access === null ? "" : accessKey(access)));
  const stores = nest.stores.map(({ to, value, row }) => `${accessKey(to)} ${value} ${bit(row)}`);
  return [
    bodyText(nest.body),
    plan.mode,
    bit(plan.streams),
    plan.vector,
    plan.outer.join(" "),
    plan.inner.join(" "),
    plan.unroll,
    plan.segments.length,
    nest.axes.length,
    bits(plan.axes, ({ inner }) => inner),
    bit(innerCount(plan) === 1),
    accumulators,
    rotation,
    bit(plan.mode === "row" && layout.bytes > MAX_SAVED_BYTES),
    nest.indexAxis.filter((_, i) => nest.body[i]?.op === "index").join(" "),
    loads.join(";"),
    stores.join(";"),
  ].join();
}

// --- bodies

interface Body {
  instrs: readonly Instr[];
  readonly text: string;
}

const bodies = new Map<number, Body[]>(); // by length

/**
 * A text that bodies share if they differ only in what their loads read and in float constants. It is the same in every process, since a
 * lasting cache has it in the keys of functions; it is written once for each body, because comparing is cheaper.
 */
function bodyText(instrs: readonly Instr[]): string {
  let ofLength = bodies.get(instrs.length);
  if (ofLength === undefined || ofLength.length >= MOST) bodies.set(instrs.length, (ofLength = []));
  for (const body of ofLength) {
    if (!sameBody(body.instrs, instrs)) continue;
    body.instrs = instrs; // programs of other lengths have the very same instructions, which are found equal at once
    return body.text;
  }
  const text = JSON.stringify(instrs.map(withoutNumbers));
  ofLength.push({ instrs, text });
  return text;
}

function sameBody(a: readonly Instr[], b: readonly Instr[]): boolean {
  for (let i = 0; i < a.length; i++) if (!isSame(a[i]!, b[i]!)) return false;
  return true;
}

/** What `isSame` compares of an instruction. */
function withoutNumbers(instr: Instr): object {
  const { op, dtype } = instr;
  if (op === "load") return { op, dtype };
  return instr.op === "const" && isNumber(instr) ? { op, dtype, isNaN: Number.isNaN(instr.value) } : instr;
}

function isSame(a: Instr, b: Instr): boolean {
  if (a.op !== "const" || b.op !== "const" || !isNumber(a)) return sameInstr(a, b);
  return a.dtype === b.dtype && Number.isNaN(a.value) === Number.isNaN(b.value);
}
