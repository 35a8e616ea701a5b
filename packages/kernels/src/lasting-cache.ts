/**
 * What outlives a process: plans and generated code by what they were made of, so that a second start of a program makes none of them
 * again. A backend that has such a cache offers it as `cache`; the planner keeps its plans there too.
 */

/** What a value was made of, apart from the code that made it. */
export type LastingKey = readonly (string | Int32Array | Float64Array)[];

/** A store that outlives the process, by kind of value and key. */
export interface LastingCache {
  /** The value that was kept under a key; undefined if there is none, or if it is damaged. */
  find(kind: string, key: LastingKey): unknown;
  /** Keeps a value: a structured clone of it. Does nothing where that is impossible, as on a full disk. */
  keep(kind: string, key: LastingKey, value: unknown): void;
}

/** What the cache has under a key, or else what `make` makes, which is kept. Without a cache, just makes it. */
export function keptOr<T>(
  cache: LastingCache | undefined,
  kind: string,
  key: () => LastingKey,
  make: () => T,
): T {
  if (cache === undefined) return make();
  const wanted = key();
  const found = cache.find(kind, wanted);
  if (found !== undefined) return found as T;
  const made = make();
  cache.keep(kind, wanted, made);
  return made;
}
