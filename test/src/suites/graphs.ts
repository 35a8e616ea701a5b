/** Random graphs of tensor operations: with and without fusion, results must be within the yardstick's bounds. */
import type { Coverage } from "../compare.ts";
import { graphs } from "../generate/graphs.ts";
import { checkGraph } from "../graph-check.ts";
import { property } from "../property.ts";
import { Yardstick } from "../yardstick.ts";
import { type ConformanceCase, type Context, type Fusion, requireCoverage } from "./context.ts";

/** The maximum number of elements of a tensor. */
const LIMIT = 1500;

export function graphCases(context: Context): ConformanceCase[] {
  const check = (fusion: Fusion, runs: number): ConformanceCase => ({
    name: `random graphs, fusion ${fusion}`,
    run: async () => {
      const device = await context.device(fusion);
      const yardstick = new Yardstick(context.options.precision);
      const coverage: Coverage = { elements: 0, bounded: 0 };
      await property(
        graphs(LIMIT),
        (gene) => checkGraph(device, yardstick, gene, LIMIT, coverage),
        context.runs(runs, fusion === "on" ? "kernels or graphs" : undefined),
      );
      requireCoverage(coverage, 0.6);
    },
  });
  return [check("on", 40), check("off", 20)];
}
