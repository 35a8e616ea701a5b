/** Timing with Benchmark.js. The median of its samples is reported, since on a busy machine the mean follows the outliers. */
import Benchmark from "benchmark";

export interface Timing {
  readonly medianMs: number;
  /** Half the interquartile range, relative to the median. */
  readonly spread: number;
  readonly samples: number;
}

/** Times `fn` repeatedly for about `seconds`, after three runs for compilation. Rejects if `fn` throws in a timed run. */
export async function measure(fn: () => Promise<void>, seconds: number): Promise<Timing> {
  for (let i = 0; i < 3; i++) await fn();
  const bench = new Benchmark({
    defer: true,
    minSamples: 5,
    maxTime: seconds,
    fn: (deferred: { resolve(): void }) => void fn().then(() => deferred.resolve()),
  });
  await new Promise<void>((resolve, reject) => {
    bench.on("complete", () => resolve());
    bench.on("error", () => reject(bench.error));
    bench.run({ async: true });
  });
  const sorted = bench.stats.sample.toSorted((a, b) => a - b);
  const at = (share: number): number => sorted[Math.floor(share * (sorted.length - 1))] ?? NaN;
  return {
    medianMs: 1000 * at(0.5),
    spread: (at(0.75) - at(0.25)) / 2 / at(0.5),
    samples: sorted.length,
  };
}
