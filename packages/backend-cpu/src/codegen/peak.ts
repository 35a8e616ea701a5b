/**
 * A program that measures the peak arithmetic rate of this engine on this machine, by multiply-adds in registers; kernels are
 * compared with it.
 */
import { Module } from "./assembler.ts";
import { f32x4, v128 } from "./instructions.ts";
import { VectorMath } from "./math.ts";
import { CodeModule, exportName } from "./library.ts";
import type { CompiledProgram } from "./compiled.ts";
import { STEP_PARAMS } from "./step.ts";

const ITERATIONS = 400_000;
const CHUNKS_PER_THREAD = 4;

export interface PeakProgram {
  readonly compiled: CompiledProgram;
  /** Floating-point operations of one run. */
  readonly flop: number;
}

/**
 * The multiply-adds are independent: enough of them to hide their latency, few enough for the registers. Neighboring results
 * are stored next to one another, because V8 looks there for operations to combine into 256-bit ones (`wide`).
 */
export function peakProgram(
  threads: number,
  shared: boolean,
  { fma, wide }: { readonly fma: boolean; readonly wide: boolean },
): PeakProgram {
  const sums = wide ? 24 : 12;
  const module = new Module();
  module.fn(exportName(0), STEP_PARAMS, [], (f, _frame, _args, _chunk, scratch) => {
    const math = new VectorMath(f, fma);
    v128.store(f, scratch, math.k(-1e-9));
    const x = f.bind(v128.load32_splat(scratch)); // a constant would keep V8 from combining its users
    const values = Array.from({ length: sums }, () => f.local("v128", f32x4.const(1)));
    const i = f.local("i32", ITERATIONS);
    f.doWhile(
      () => {
        for (const value of values) f.set(value, math.madd(x, value, value));
        f.add(i, -1);
      },
      () => i,
    );
    values.forEach((value, s) => v128.store(f, scratch, value, 16 * s));
  });
  const chunks = CHUNKS_PER_THREAD * threads;
  const code = new CodeModule();
  code.size = 1;
  code.bytes = module.bytes({ shared });
  const compiled: CompiledProgram = {
    functions: [{ module: code, index: 0, isGeneral: false, key: "peak", numbers: [] }],
    module: code,
    calls: [{ fn: 0, chunks, addresses: [], numbers: [] }],
    steps: [],
    buffersAt: 0,
    frameBytes: 0,
    temps: new Map(),
    scratchBytes: 16 * sums,
    cost: Infinity,
  };
  return { compiled, flop: 8 * sums * ITERATIONS * chunks };
}
