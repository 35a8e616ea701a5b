/** Compares every op record, forward and backward, in all types and views, with the yardstick. */
import fc from "fast-check";
import type { Coverage } from "../compare.ts";
import { checkForward, runnable, variation } from "../forward.ts";
import { property } from "../property.ts";
import { RECORDS } from "../records/index.ts";
import type { OpRecord } from "../records/record.ts";
import { Yardstick } from "../yardstick.ts";
import { type ConformanceCase, type Context, type Fusion, requireCoverage } from "./context.ts";
import { withoutLibrary } from "./fallback.ts";

/** The maximum number of elements of an input. */
const LIMIT = 600;
const ROUNDS = 3;

/** The records by name; those that share a name become one case. */
function recordsByName(): Map<string, OpRecord[]> {
  const names = new Map<string, OpRecord[]>();
  for (const record of RECORDS) names.set(record.name, [...(names.get(record.name) ?? []), record]);
  return names;
}

async function checkRecords(
  context: Context,
  records: readonly OpRecord[],
  runs: number,
  fusion: Fusion | "fallback",
): Promise<void> {
  const shared = await context.device(fusion === "fallback" ? "on" : fusion);
  const device = fusion === "fallback" ? withoutLibrary(shared) : shared;
  const { dtypes } = device.backend.caps;
  const yardstick = new Yardstick(context.options.precision);
  const coverage: Coverage = { elements: 0, bounded: 0 };
  // If by chance all cases had inputs that are NaN or infinite, none counts: a few rounds more then find others.
  for (let round = 0; round < ROUNDS && coverage.elements === 0; round++) {
    const { seed, ...options } = context.runs(runs);
    for (const record of records) {
      const cases = fc.tuple(record.cases({ limit: LIMIT, zeros: true }), variation);
      await property(
        cases,
        async ([test, how]) => {
          if (runnable(test, dtypes)) await checkForward(device, yardstick, record, test, how, coverage);
        },
        seed === undefined ? options : { ...options, seed: seed + round },
      );
    }
  }
  requireCoverage(coverage);
}

export function opCases(context: Context): ConformanceCase[] {
  return [...recordsByName()].flatMap(([name, records]) => [
    { name: `${name}, forward and backward`, run: () => checkRecords(context, records, 12, "on") },
    {
      name: `${name}, forward and backward, without fusion`,
      run: () => checkRecords(context, records, 4, "off"),
    },
  ]);
}

/** The records whose operations become library calls. */
const LIBRARY = ["matmul", "scaledDotProductAttention", "take", "gather", "scatterAdd", "einsum"];

/** Cases in which core lowers every library call to loop kernels; the results must stay within the same bounds. */
export function fallbackCases(context: Context): ConformanceCase[] {
  const names = recordsByName();
  return LIBRARY.map((name) => ({
    name: `${name} by its fallback in loop kernels`,
    run: () => checkRecords(context, names.get(name)!, 8, "fallback"),
  }));
}
