/** Sizes to which lengths are rounded up, so that few programs serve all of them. */

const SMALLEST = 16;

/** Rounds up to one of 16, 24, 32, 48, 64, 96, …: from 16 on by less than half, with two sizes, and programs, per doubling. */
export function paddedSize(count: number): number {
  let size = SMALLEST;
  while (size < count) size *= 2;
  const between = (size / 4) * 3;
  return between >= Math.max(count, SMALLEST) ? between : size;
}
