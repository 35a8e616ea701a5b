/**
 * Ways to merge several updates of one weight element by element, before the sum is approximated at a rank: by magnitude, TIES (Yadav
 * et al. 2023, arXiv 2306.01708) and DARE (Yu et al. 2023, arXiv 2311.03099). On the host, in f32.
 */
import { type Key, uniformArray } from "@tiedlora/core";

/** One adapter's update of a weight, and its weight in the sum. */
export interface Weighted {
  readonly values: Float32Array;
  readonly weight: number;
}

/** Which share of the elements is kept, and the key of random choices. */
export interface Density {
  readonly density: number;
  readonly key: Key;
}

/** The name of a way to merge element by element. */
export type Elementwise = "magnitude" | "ties" | "dare" | "dare-ties";

type Merge = (updates: readonly Weighted[], options: Density) => Float32Array;

/** The ways by name; each returns the merged update. */
export const ELEMENTWISE: Readonly<Record<Elementwise, Merge>> = {
  /** The weighted sum of the updates' largest elements. */
  magnitude: (updates, { density }) => sum(pruned(updates, density)),
  /** Of the largest elements, at each place, the mean of those whose sign has the larger sum. */
  ties: (updates, { density }) => agreeing(pruned(updates, density)),
  /** The weighted sum of random elements, divided by the density, so that its expectation is that of all. */
  dare: (updates, options) => sum(dropped(updates, options)),
  /** Of random elements, at each place, the mean of those whose sign has the larger sum. */
  "dare-ties": (updates, options) => agreeing(dropped(updates, options)),
};

function pruned(updates: readonly Weighted[], density: number): Weighted[] {
  return updates.map(({ values, weight }) => ({ values: largest(values, density), weight }));
}

function dropped(updates: readonly Weighted[], { density, key }: Density): Weighted[] {
  return updates.map(({ values, weight }, i) => {
    const chances = uniformArray(key.fold(String(i)), values.length);
    return { values: values.map((value, j) => (chances[j]! < density ? value / density : 0)), weight };
  });
}

/** The elements of the largest magnitude, `density` of all, rounded down; zero in place of the others. Of equals, earlier ones are kept. */
export function largest(values: Float32Array, density: number): Float32Array {
  const count = Math.floor(density * values.length);
  if (count === 0) return new Float32Array(values.length);
  const magnitudes = values.map(Math.abs).sort();
  const least = magnitudes[values.length - count]!;
  let equals = count - magnitudes.filter((value) => value > least).length;
  return values.map((value) => {
    const magnitude = Math.abs(value);
    if (magnitude > least) return value;
    return magnitude === least && equals-- > 0 ? value : 0;
  });
}

function sum(updates: readonly Weighted[]): Float32Array {
  return elements(updates, (at) => updates.reduce((total, { weight }, i) => total + weight * at(i), 0));
}

/**
 * At each element, the sum of the weighted values that have the elected sign, divided by their number. The sign is that of the sum of
 * the values, each times the sign of its weight; that of zero is positive.
 */
function agreeing(updates: readonly Weighted[]): Float32Array {
  return elements(updates, (at) => {
    const elected = updates.reduce((total, { weight }, i) => total + Math.sign(weight) * at(i), 0);
    let [total, count] = [0, 0];
    for (const [i, { weight }] of updates.entries()) {
      const value = Math.sign(weight) * at(i);
      if (value === 0 || value > 0 !== elected >= 0) continue;
      total += Math.abs(weight) * value;
      count++;
    }
    return total / Math.max(1, count);
  });
}

/** A value for each element, from those of all updates there. */
function elements(
  updates: readonly Weighted[],
  value: (at: (update: number) => number) => number,
): Float32Array {
  return new Float32Array(updates[0]!.values.length).map((_, j) => value((i) => updates[i]!.values[j]!));
}
