/**
 * The suite: everything a backend must do, as a list of named cases that any runner can run (node:test, a page, a loop).
 *
 *   const suite = conformance(({ fusion }) => myDevice({ fusion }), { subset: "all" });
 *   for (const { name, run } of suite.cases) test(name, run);
 *   after(() => suite.close());
 */
import { bufferCases } from "./suites/buffers.ts";
import {
  type ConformanceCase,
  type ConformanceOptions,
  Context,
  type Gap,
  type MakeDevice,
} from "./suites/context.ts";
import { errorCases } from "./suites/errors.ts";
import { functionCases } from "./suites/functions.ts";
import { graphCases } from "./suites/graphs.ts";
import { kernelCases } from "./suites/kernels.ts";
import { linalgCases } from "./suites/linalg.ts";
import { fallbackCases, opCases } from "./suites/ops.ts";
import { orderingCases } from "./suites/ordering.ts";
import { quantizedCases } from "./suites/quantized.ts";
import { randomCases } from "./suites/random.ts";
import { specialCases } from "./suites/special.ts";
import { trainingCases } from "./suites/training.ts";
import { windowCases } from "./suites/windows.ts";

/** The cases that a backend must pass. */
export interface ConformanceSuite {
  readonly cases: readonly ConformanceCase[];
  /** Closes the devices that the cases share. */
  close(): Promise<void>;
}

/** Cases that the core leaves out: those that repeat a part of it in another setting, and those that take long. */
const NOT_CORE = [/without fusion/, /fusion off/, /200 steps/];
/** The number of random cases in the core, relative to the default. */
const CORE_EFFORT = 0.25;

/** The conformance suite for the backend of the devices that `makeDevice` returns. Throws if a known gap names no case. */
export function conformance(makeDevice: MakeDevice, options: ConformanceOptions = {}): ConformanceSuite {
  const isCore = options.subset === "core";
  const effort = options.effort ?? (isCore ? CORE_EFFORT : 1);
  const context = new Context(makeDevice, { ...options, effort });
  const all = [
    ...bufferCases(context),
    ...kernelCases(context),
    ...opCases(context),
    ...fallbackCases(context),
    ...functionCases(context),
    ...orderingCases(context),
    ...linalgCases(context),
    ...specialCases(context),
    ...graphCases(context),
    ...windowCases(context),
    ...quantizedCases(context),
    ...randomCases(context),
    ...errorCases(context),
    ...trainingCases(context),
  ];
  const chosen = isCore ? all.filter(({ name }) => !NOT_CORE.some((pattern) => pattern.test(name))) : all;
  const gaps = options.gaps ?? [];
  const unknown = gaps.find(({ name }) => !all.some((one) => one.name === name));
  if (unknown) throw new Error(`a known gap names "${unknown.name}", which is no case of the suite`);
  return {
    cases: chosen.map((one) => withGap(one, gaps.find(({ name }) => name === one.name))), // prettier-ignore
    close: () => context.close(),
  };
}

/** A case with a known gap is inverted: it passes while the original fails. */
function withGap(one: ConformanceCase, gap: Gap | undefined): ConformanceCase {
  if (!gap) return one;
  return {
    name: `${one.name} (known gap: ${gap.reason})`,
    run: async () => {
      let failed = false;
      await one.run().catch(() => (failed = true));
      if (!failed) throw new Error(`"${one.name}" passes: remove it from the known gaps ("${gap.reason}")`);
    },
  };
}
