/**
 * How a kernel sees its buffers: the type of array that each is declared as, and the part of each that is bound. If a kernel
 * needs more of a buffer than one binding can show, several bindings show it.
 */
import { BYTES, type DType, type Operand } from "@tiedlora/kernels";
import { byteExtent } from "./space.ts";
import { ceilDiv, type Target } from "./target.ts";

/** How a buffer's elements are declared; half precision is either `f16`, or two elements to a 32-bit word ("pair"). */
export type Kind = "f32" | "i32" | "u32" | "f16" | "pair";

/** How four neighbors along the vector axis are accessed: as one shared element, four at once, or one by one. */
export type Mode = "scalar" | "vector" | "gather";

/** A request: an operand, whether it is stored to, the lengths of its axes, and the axis walked four at a time. */
export interface Use {
  readonly operand: Operand;
  readonly write: boolean;
  readonly lengths: readonly number[];
  readonly vectorAxis?: number | undefined;
}

/** A buffer, or a part of it, as a kernel sees it. */
export interface Shown {
  readonly buffer: number;
  /** First byte and length of the part. */
  readonly start: number;
  readonly bytes: number;
  /** Number of the first of its bindings. */
  readonly first: number;
  /** The number of bindings; each shows `window` bytes, except the last. */
  readonly parts: number;
  readonly window: number;
  readonly kind: Kind;
  /** Whether an array element holds four elements of the buffer (for "pair", four halves). */
  readonly wide: boolean;
  readonly write: boolean;
  readonly atomic: boolean;
}

/** One operand in use. Elements are numbered from the start of what is shown of its buffer: see `offset`. */
export interface BoundOperand {
  readonly operand: Operand;
  readonly shown: Shown;
  readonly mode: Mode;
  /** The view's offset, from the start of what is bound. */
  readonly offset: number;
}

export function boundOf(use: Use, shown: Shown): BoundOperand {
  const { operand } = use;
  const offset = operand.view.offset - shown.start / BYTES[operand.dtype];
  return { operand, shown, mode: modeOf(use), offset };
}

/** How `use` can be accessed along its vector axis. */
export function modeOf({ operand, lengths, vectorAxis: v }: Use): Mode {
  const { view } = operand;
  if (v === undefined || v >= view.strides.length) return "scalar";
  const valid = view.valid?.[v];
  if (view.strides[v] === 0 && !valid) return "scalar";
  const aligned =
    view.strides[v] === 1 &&
    view.offset % 4 === 0 &&
    (view.moving ?? []).every(({ factor }) => factor % 4 === 0) &&
    view.strides.every((s, d) => d === v || s % 4 === 0 || lengths[d] === 1) &&
    (!valid || (valid[0] % 4 === 0 && (valid[1] % 4 === 0 || valid[1] >= lengths[v]!)));
  return aligned ? "vector" : "gather";
}

/** How to show a buffer of `bytes` bytes for all its uses, from binding number `first` on. */
export function show(
  buffer: number,
  uses: readonly Use[],
  bytes: number,
  first: number,
  target: Target,
): Shown {
  const kind = kindOf(new Set(uses.map((u) => u.operand.dtype)), target);
  const [start, end] = partOf(uses, bytes, target);
  const window = windowOf(target);
  const parts = Math.max(1, ceilDiv(end - start, window));
  const write = uses.some((u) => u.write);
  return { buffer, start, bytes: end - start, first, parts, window, kind, write, ...elementsOf(uses, kind) };
}

function kindOf(dtypes: ReadonlySet<DType>, target: Target): Kind {
  const sizes = new Set([...dtypes].map((d) => BYTES[d]));
  if (sizes.size > 1) {
    throw new Error(
      `backend-webgpu: one kernel sees a buffer as ${[...dtypes].join(" and ")}, of different widths`,
    );
  }
  if (sizes.has(2)) return target.f16 && !dtypes.has("bf16") ? "f16" : "pair";
  const kinds = new Set([...dtypes].map((d): Kind => (d === "f32" || d === "i32" ? d : "u32")));
  return kinds.size === 1 ? [...kinds][0]! : "u32";
}

/** Whether four elements are declared as one, and whether elements are atomic. */
function elementsOf(uses: readonly Use[], kind: Kind): Pick<Shown, "wide" | "atomic"> {
  const modes = uses.map(modeOf);
  const isStoredBy = (mode: Mode): boolean => uses.some((u, i) => u.write && modes[i] === mode);
  // Storing one component of a vector may rewrite the others, so narrow stores need narrow elements.
  const wide = modes.includes("vector") && !modes.includes("gather") && !isStoredBy("scalar");
  // Two halves share a word: a store of only one of them must not lose the other.
  const atomic = kind === "pair" && uses.some((u, i) => u.write && !(wide && modes[i] === "vector"));
  return { wide: wide && !atomic, atomic };
}

/** How many bytes are bound of a buffer of `bytes` bytes that fits a binding. */
export const wholeBytes = (bytes: number): number => Math.max(16, ceilDiv(bytes, 16) * 16);

/** The most bytes of a buffer that one binding shows where several do. */
export const windowOf = ({ maxBindingBytes }: Target): number => Math.floor(maxBindingBytes / 256) * 256;

/** Whether one binding shows all of a buffer of `bytes` bytes; nothing else of a kernel depends on them then. */
export const fitsBinding = (bytes: number, target: Target): boolean => wholeBytes(bytes) <= windowOf(target);

/** The range of bytes that is shown: all of a buffer that fits a binding, otherwise the part that is used. */
function partOf(uses: readonly Use[], bytes: number, target: Target): readonly [number, number] {
  const whole = wholeBytes(bytes);
  if (whole <= target.maxBindingBytes) return [0, whole];
  const touched = uses.flatMap((u) => byteExtent(u.operand, u.lengths) ?? []);
  if (touched.length === 0) return [0, 16];
  const start = Math.floor(Math.min(...touched) / target.offsetAlignment) * target.offsetAlignment;
  return [start, Math.min(Math.max(...touched), whole)];
}
