/** The iteration space of a kernel: the elements of its largest values in row-major order, of which reductions fold some axes. */
import { product } from "@tiedlora/kernels";
import { same } from "@tiedlora/kernels/family";
import type { Space } from "@tiedlora/kernels/canonical";
import type { Split } from "./views.ts";

export type { Space };

/** The number of elements. */
export const points = ({ extents }: Space): number => product(extents);
/** The number of elements that are left when the inner axes are folded. */
export const rows = ({ extents, inner }: Space): number => product(extents.filter((_, axis) => !inner[axis]));
/** Whether reductions fold any axis. */
export const folds = ({ inner }: Space): boolean => inner.includes(true);

/** A key for the runs of elements that are folded: equal for spaces that differ only in how axes are split. */
export function pattern({ extents, inner }: Space): string {
  const runs: { n: number; inner: boolean }[] = [];
  extents.forEach((n, axis) => {
    const last = runs.at(-1);
    if (last && last.inner === inner[axis]) last.n *= n;
    else runs.push({ n, inner: inner[axis]! });
  });
  return runs.map((run) => `${run.inner ? "fold" : "keep"} ${run.n}`).join();
}

/** A space in which both can be computed, or null: rows must be equal, or elements or rows of equal number. */
export function commonSpace(a: Space, b: Space): Space | null {
  if (folds(a) && folds(b)) return pattern(a) === pattern(b) ? a : null;
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
