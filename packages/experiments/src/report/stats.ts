/** Means with confidence intervals, for a few seeds. */

export interface Interval {
  readonly mean: number;
  /** Half the width of the 95 % confidence interval of the mean; null with fewer than two values. */
  readonly half: number | null;
  readonly count: number;
}

/** Two-sided 95 % quantiles of Student's t for 1, 2, … degrees of freedom. */
const T95 = [
  12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131, 2.12, 2.11, 2.101,
  2.093, 2.086, 2.08, 2.074, 2.069, 2.064, 2.06, 2.056, 2.052, 2.048, 2.045, 2.042,
]; // prettier-ignore

/** The mean of values and its confidence interval, if the values are normally distributed. */
export function interval(values: readonly number[]): Interval {
  const count = values.length;
  if (count === 0) throw new RangeError("interval: there are no values; expected at least one");
  const mean = values.reduce((a, b) => a + b, 0) / count;
  if (count === 1) return { mean, half: null, count };
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (count - 1);
  return { mean, half: (T95[count - 2] ?? 1.96) * Math.sqrt(variance / count), count };
}

/**
 * The mean difference of two sets of values by seed, over the seeds that both have, and its confidence interval. What a seed does to
 * both cancels, so that the interval is narrower than those of the values.
 */
export function pairedDifference(
  values: ReadonlyMap<number, number>,
  others: ReadonlyMap<number, number>,
): Interval {
  const differences = [...values].flatMap(([seed, value]) => {
    const other = others.get(seed);
    return other === undefined ? [] : [value - other];
  });
  return differences.length === 0 ? { mean: NaN, half: null, count: 0 } : interval(differences);
}
