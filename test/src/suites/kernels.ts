/** Random programs on the backend itself, without tensors and plans. */
import type fc from "fast-check";
import { checkProgram, type Coverage } from "../compare.ts";
import type { Limits, ProgramCase } from "../generate/builder.ts";
import {
  attentionPrograms,
  indexPrograms,
  libraryCalls,
  loopPrograms,
  matmulPrograms,
} from "../generate/programs.ts";
import { property } from "../property.ts";
import { type ConformanceCase, type Context, requireCoverage } from "./context.ts";

interface Kind {
  readonly name: string;
  readonly programs: (limits: Limits) => fc.Arbitrary<ProgramCase>;
  readonly runs: number;
  readonly elements: number;
  /** How often each executable runs, each time with other buffers and scalars. */
  readonly repeats: number;
}

const KINDS: readonly Kind[] = [
  { name: "loop kernels", programs: loopPrograms, runs: 80, elements: 3000, repeats: 1 },
  {
    name: "loop kernels, run again with other buffers",
    programs: loopPrograms,
    runs: 25,
    elements: 500,
    repeats: 3,
  },
  { name: "matmul", programs: matmulPrograms, runs: 40, elements: 5000, repeats: 1 },
  { name: "attention and its gradient", programs: attentionPrograms, runs: 16, elements: 5000, repeats: 1 },
  { name: "gather and scatterAdd", programs: indexPrograms, runs: 30, elements: 5000, repeats: 1 },
];

/** Whether `compile` may be given the program: core lowers library calls that the backend does not accelerate. */
function accepts(
  accelerates: (call: ReturnType<typeof libraryCalls>[number]) => boolean,
  test: ProgramCase,
): boolean {
  return libraryCalls(test).every(accelerates);
}

export function kernelCases(context: Context): ConformanceCase[] {
  return KINDS.map(({ name, programs, runs, elements, repeats }) => ({
    name: `random ${name}`,
    run: async () => {
      const { backend } = await context.device();
      const coverage: Coverage = { elements: 0, bounded: 0 };
      const check = async (test: ProgramCase): Promise<void> => {
        if (!accepts((call) => backend.accelerates(call), test)) return;
        await checkProgram(backend, test, { coverage, repeats, precision: context.options.precision });
      };
      await property(
        programs(await context.limits(elements)),
        check,
        context.runs(runs, name === "loop kernels" ? "kernels or graphs" : undefined),
      );
      requireCoverage(coverage);
    },
  }));
}
