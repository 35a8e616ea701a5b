/**
 * Which adapter each row of a changing batch goes through. Programs differ in how many rows each adapter has, so these numbers are
 * rounded up to powers of two, at the cost of rows without a sequence: few programs serve all mixtures of requests.
 */
import type { AdapterChoice } from "../adapter-choice.ts";

/** Stands for a row without an adapter, as in the mixed batches of an `AdapterSelector`. */
export const NO_ADAPTER = "__base__";

/** The smallest power of two that is at least `count`. */
function powerOfTwo(count: number): number {
  let size = 1;
  while (size < count) size *= 2;
  return size;
}

/** The sizes of the groups of equal names, by name; the largest group first. */
function groupsOf(names: Iterable<string>): [name: string, count: number][] {
  const counts = new Map<string, number>();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts].sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1));
}

/** The rows that a batch of sequences with these adapters needs: a power of two with room for each rounded group. */
export function rowsFor(names: readonly string[]): number {
  return powerOfTwo(groupsOf(names).reduce((sum, [, count]) => sum + powerOfTwo(count), 0));
}

/** The choice of adapters for rows, of which those without a sequence are null. Equal rows in succession get the same object. */
export class Arrangement {
  #key: string | null = null;
  #choice: AdapterChoice = [];

  /** Throws RangeError if there are fewer rows than `rowsFor` says. */
  of(rows: readonly (string | null)[]): AdapterChoice {
    const key = JSON.stringify(rows);
    if (this.#key !== key) {
      this.#choice = choiceFor(rows);
      this.#key = key;
    }
    return this.#choice;
  }
}

function choiceFor(rows: readonly (string | null)[]): AdapterChoice {
  const [largest, ...others] = groupsOf(rows.filter((name) => name !== null));
  if (largest === undefined) return [];
  if (others.length === 0) return largest[0] === NO_ADAPTER ? [] : largest[0];
  const spare = others.flatMap(([name, count]) => Array<string>(powerOfTwo(count) - count).fill(name));
  if (spare.length > rows.filter((name) => name === null).length)
    throw new RangeError(
      `${rows.length} rows have no room for groups of ${[largest, ...others].map(([, n]) => n).join(", ")} rows`,
    );
  return { rows: rows.map((name) => name ?? spare.pop() ?? largest[0]) };
}
