/**
 * The iteration space of a kernel: the elements of its largest values in row-major order, of which reductions fold some axes.
 * @module
 */
import type { Space } from "./canonical.ts";
import { same } from "./family.ts";
import { product } from "./shape.ts";
import type { Split } from "./views.ts";

export type { Space };

/** The number of elements. */
export const points = ({ extents }: Space): number => product(extents);
/** The number of elements that are left when the inner axes are folded. */
export const rows = ({ extents, inner }: Space): number => product(extents.filter((_, axis) => !inner[axis]));
/** Whether reductions fold any axis. */
export const folds = ({ inner }: Space): boolean => inner.includes(true);

/** The runs of axes that are all folded, or all kept, and how many elements each has. */
function runsOf({ extents, inner }: Space): { n: number; readonly inner: boolean }[] {
  const runs: { n: number; readonly inner: boolean }[] = [];
  extents.forEach((n, axis) => {
    const last = runs.at(-1);
    if (last && last.inner === inner[axis]) last.n *= n;
    else runs.push({ n, inner: inner[axis]! });
  });
  return runs;
}

/** Whether the same runs of elements are folded: spaces may differ only in how axes are split. */
export function samePattern(a: Space, b: Space): boolean {
  const [runs, others] = [runsOf(a), runsOf(b)];
  return (
    runs.length === others.length &&
    runs.every((run, i) => run.inner === others[i]!.inner && same(run.n, others[i]!.n))
  );
}

/** A space in which both can be computed, or null: rows must be equal, or elements or rows of equal number. */
export function commonSpace(a: Space, b: Space): Space | null {
  if (folds(a) && folds(b)) return samePattern(a, b) ? a : null;
  if (folds(b)) return commonSpace(b, a);
  return same(points(b), points(a)) || same(points(b), rows(a)) ? a : null;
}

/** The same elements, with one axis split in two. */
export function split({ extents, inner }: Space, { axis, inner: length }: Split): Space {
  return {
    extents: extents.flatMap((n, i) => (i === axis ? [n / length, length] : [n])),
    inner: inner.flatMap((x, i) => (i === axis ? [x, x] : [x])),
  };
}
