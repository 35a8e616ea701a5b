/**
 * Iteration spaces: merges axes that all operands walk as if they were one, and splits a kernel along an axis if its operands
 * do not fit one binding.
 */
import { BYTES, type Instr, type LoopKernel, type Operand, type Store, type View } from "@tiedlora/kernels";
import type { Target } from "./target.ts";

/** A loop kernel over a part of its iteration space: `index` along an axis starts at `origin[axis]`. */
export interface Space {
  readonly outer: readonly number[];
  readonly inner: readonly number[];
  readonly origin: readonly number[];
  readonly body: readonly Instr[];
  readonly stores: readonly Store[];
}

/** The kernel as a space; axes of a kernel that folds nothing are all parallel. */
export function spaceOf(kernel: LoopKernel): Space {
  const { body, stores } = kernel;
  const axes = [...kernel.outer, ...kernel.inner];
  const flat =
    !body.some((i) => i.op === "reduce") && stores.every((s) => s.to.view.strides.length === axes.length);
  const [outer, inner] = flat ? [axes, []] : [kernel.outer, kernel.inner];
  return { outer, inner, origin: axes.map(() => 0), body, stores };
}

/** Every operand that the space loads or stores. */
export function operandsOfSpace(space: Pick<Space, "body" | "stores">): Operand[] {
  return [...space.body.flatMap((i) => (i.op === "load" ? [i.from] : [])), ...space.stores.map((s) => s.to)];
}

/** The space with every operand's view, and every index instruction's axis, replaced. */
function mapSpace(
  space: Space,
  shape: Pick<Space, "outer" | "inner" | "origin">,
  view: (view: View) => View,
  axis: (axis: number) => number,
): Space {
  const operand = (o: Operand): Operand => ({ ...o, view: view(o.view) });
  return {
    ...shape,
    body: space.body.map((i) => {
      if (i.op === "load") return { ...i, from: operand(i.from) };
      return i.op === "index" ? { ...i, axis: axis(i.axis) } : i;
    }),
    stores: space.stores.map((s) => ({ ...s, to: operand(s.to) })),
  };
}

/** Drops axes of length 1 and merges neighbors that every operand walks through as if they were one. */
export function coalesce(space: Space): Space {
  const views = operandsOfSpace(space).map((o) => o.view);
  const indexed = new Set(space.body.flatMap((i) => (i.op === "index" ? [i.axis] : [])));
  const isFixed = (d: number): boolean => indexed.has(d) || views.some((v) => v.valid?.[d]);
  const axes = [...space.outer, ...space.inner].map((length, d) => ({
    length,
    last: d,
    isOuter: d < space.outer.length,
    fixed: isFixed(d),
  }));
  type Axis = (typeof axes)[number];
  const mergeable = (a: Axis, b: Axis): boolean =>
    a.isOuter === b.isOuter &&
    !a.fixed &&
    !b.fixed &&
    views.every((v) => b.last >= v.strides.length || v.strides[a.last] === v.strides[b.last]! * b.length);

  const kept: Axis[] = [];
  for (const axis of axes) {
    if (axis.length === 1 && !axis.fixed) continue;
    const before = kept[kept.length - 1];
    if (before && mergeable(before, axis)) {
      kept[kept.length - 1] = { ...axis, length: before.length * axis.length };
    } else kept.push(axis);
  }
  if (kept.length === axes.length) return space;
  const select = <T>(of: readonly T[]): T[] => kept.filter((a) => a.last < of.length).map((a) => of[a.last]!);
  return mapSpace(
    space,
    {
      outer: kept.filter((a) => a.isOuter).map((a) => a.length),
      inner: kept.filter((a) => !a.isOuter).map((a) => a.length),
      origin: select(space.origin),
    },
    (v) => ({
      offset: v.offset,
      ...(v.moving ? { moving: v.moving } : {}),
      strides: select(v.strides),
      ...(v.valid ? { valid: select(v.valid) } : {}),
    }),
    (axis) => kept.findIndex((a) => a.last === axis),
  );
}

/** The part `[start, start + length)` of `axis`. */
export function narrow(space: Space, axis: number, start: number, length: number): Space {
  const replace = (lengths: readonly number[], at: number): number[] =>
    lengths.map((n, d) => (d === at ? length : n));
  return mapSpace(
    space,
    {
      outer: replace(space.outer, axis),
      inner: replace(space.inner, axis - space.outer.length),
      origin: space.origin.map((o, d) => (d === axis ? o + start : o)),
    },
    (view) => narrowView(view, axis, start),
    (a) => a,
  );
}

/** The view seen by an iteration space whose `axis` begins at `start`. */
export function narrowView(view: View, axis: number, start: number): View {
  if (axis >= view.strides.length) return view;
  const offset = view.offset + start * view.strides[axis]!;
  if (!view.valid) return { ...view, offset };
  const valid = view.valid.map((v, d) => (v && d === axis ? ([v[0] - start, v[1] - start] as const) : v));
  return { ...view, offset, valid };
}

/** The first and last element that a view may touch, or null where its valid ranges leave nothing. */
function extent(view: View, lengths: readonly number[]): readonly [number, number] | null {
  if (view.moving) return [0, Infinity];
  let [low, high] = [view.offset, view.offset];
  for (const [d, stride] of view.strides.entries()) {
    const range = view.valid?.[d];
    const length = lengths[d]!;
    const [from, to] = range ? [Math.max(range[0], 0), Math.min(range[1], length)] : [0, length];
    if (from >= to) return null;
    const ends = [from * stride, (to - 1) * stride];
    low += Math.min(...ends);
    high += Math.max(...ends);
  }
  return [low, high];
}

/** The bytes `[from, to)` of its buffer that an operand touches, widened to whole 16-byte groups. */
export function byteExtent(operand: Operand, lengths: readonly number[]): readonly [number, number] | null {
  const elements = extent(operand.view, lengths);
  if (!elements) return null;
  const size = BYTES[operand.dtype];
  return [Math.floor((elements[0] * size) / 16) * 16, Math.ceil(((elements[1] + 1) * size) / 16) * 16];
}

/**
 * Whether an operand of an oversize buffer touches more than one binding can show, and splitting the axes `[0, outerRank)`
 * helps: the part that it touches within one outer index must fit.
 */
export function wantsSplit(
  operand: Operand,
  lengths: readonly number[],
  outerRank: number,
  bufferBytes: number,
  { maxBindingBytes, offsetAlignment }: Target,
): boolean {
  if (bufferBytes <= maxBindingBytes) return false;
  const room = maxBindingBytes - offsetAlignment;
  const touched = (of: readonly number[]): number => {
    const bytes = byteExtent(operand, of);
    return bytes === null ? 0 : bytes[1] - bytes[0];
  };
  return touched(lengths) > room && touched(lengths.map((n, d) => (d < outerRank ? 1 : n))) <= room;
}

/** The axis of `axes` whose halving most shrinks the part that the oversize operands touch; undefined if none does. */
export function axisToSplit(
  operands: readonly Operand[],
  lengths: readonly number[],
  axes: readonly number[],
): number | undefined {
  let best: { axis: number; span: number } | undefined;
  for (const axis of axes) {
    if (lengths[axis]! < 2) continue;
    const span = Math.max(
      // operands of a row lack the inner axes
      ...operands.map(({ view: { strides }, dtype }) =>
        axis < strides.length ? Math.abs(strides[axis]!) * (lengths[axis]! - 1) * BYTES[dtype] : 0,
      ),
    );
    if (span > 0 && (best === undefined || span > best.span)) best = { axis, span };
  }
  return best?.axis;
}
