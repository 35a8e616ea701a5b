/** Runs fast-check properties. A failure shows what is needed to reproduce it: the shrunk case, the seed and the path. */
import fc from "fast-check";

/** How many random cases a property is tried on, and where they start. */
export interface PropertyOptions {
  readonly runs: number;
  /** Reproduces a failure, together with `path`. */
  readonly seed?: number;
  readonly path?: string;
}

/** Throws an error with the shrunk counterexample's own message if `check` fails for any of `runs` cases. */
export async function property<T>(
  arbitrary: fc.Arbitrary<T>,
  check: (value: T) => Promise<void> | void,
  { runs, seed, path }: PropertyOptions,
): Promise<void> {
  const body = fc.asyncProperty(arbitrary, async (value) => {
    await check(value);
  });
  const parameters: fc.Parameters<[T]> = { numRuns: runs, endOnFailure: false };
  if (seed !== undefined) parameters.seed = seed;
  if (path !== undefined) parameters.path = path;
  const result = await fc.check(body, parameters);
  if (!result.failed) return;
  const cause = result.errorInstance;
  const message = cause instanceof Error ? cause.message : String(cause);
  throw new Error(
    `after ${result.numRuns} cases and ${result.numShrinks} shrinks: ${message}\n` +
      `  (seed ${result.seed}, path "${result.counterexamplePath}")`,
    { cause },
  );
}
