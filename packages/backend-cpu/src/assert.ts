/**
 * Assertions that fail only if this package has a bug. Without them, a wrong stride or address would silently give wrong
 * numbers.
 */

/** The element at index `i`; throws where there is none. */
export function at<T>(list: readonly T[], i: number, what: string): T {
  const value = list[i];
  if (value === undefined) {
    throw new Error(
      `a bug in the CPU backend: there is no ${what} ${i}, only ${list.length}; please report it`,
    );
  }
  return value;
}
