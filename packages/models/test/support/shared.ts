/** The data that is kept outside of the repository. */
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";

export const SHARED: string =
  process.env["TIEDLORA_SHARED"] ?? resolve(import.meta.dirname, "../../../../../shared");

/** A reason to skip, or false. */
export const needsShared: string | false = existsSync(SHARED) ? false : `${SHARED} is absent`;

export const sharedPath = (...parts: string[]): string => join(SHARED, ...parts);

export function sharedJson<T>(...parts: string[]): T {
  return JSON.parse(readFileSync(sharedPath(...parts), "utf8")) as T;
}

/** The largest absolute difference. */
export function maxDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  let max = 0;
  for (let i = 0; i < a.length; i++) {
    const d = Math.abs(a[i]! - b[i]!);
    if (!(d <= max)) max = Number.isNaN(d) ? Infinity : d;
  }
  return max;
}
