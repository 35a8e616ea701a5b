/** Sizes to which lengths are rounded up, so that few programs serve all of them. */

const SMALLEST = 16;

/** The next of 16, 24, 32, 48, 64, 96, …: at most half as much again, and two programs for each doubling. */
export function paddedSize(count: number): number {
  let size = SMALLEST;
  while (size < count) size *= 2;
  const between = (size / 4) * 3;
  return between >= Math.max(count, SMALLEST) ? between : size;
}
