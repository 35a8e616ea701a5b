/**
 * The matmul step: a matrix product, cut into chunks for threads and blocked around the GEMM core. Shapes and strides are
 * constants in the code. Chunks are parts of C, and k is cut at fixed places, so the result is bitwise the same however C is
 * cut.
 */
import { partsOf } from "@tiedlora/kernels";
import type { Module } from "../assembler.ts";
import { Arguments, STEP_PARAMS, type StepFunction } from "../step.ts";
import { MatmulEmitter, type MatmulOptions } from "./emit.ts";
import { compileEpilogue } from "./epilogue.ts";
import { emitGemv, isSkinny } from "./gemv.ts";
import { emitQuantizedPack, isQuantized } from "./quantized.ts";
import { emitQuantizedGemv, isSkinnyQuantized } from "./quantized-gemv.ts";
import { costOf, gridOf, layoutOf, type MatmulCall, problemOf, product, rowStrideOf } from "./plan.ts";

/** Adds the step's function to the module under `name`. */
export function compileMatmul(
  module: Module,
  name: string,
  call: MatmulCall,
  options: MatmulOptions,
): StepFunction {
  const problem = problemOf(call);
  const { m, n, batch, direct } = problem;
  const skinny = problem.terms.map(({ a, b }) =>
    isQuantized(b) ? isSkinnyQuantized(m, a, b) : isSkinny(m, a, b),
  );
  const cost = costOf(problem, skinny);
  const grid = gridOf(problem, cost, options.tile, options.threads);
  const layout = layoutOf(problem, grid, options.tile, skinny);
  const rowStride = rowStrideOf(problem, layout);

  const numbers = new Arguments();
  const terms = problem.terms.map((term, t) => ({
    ...term,
    arguments: {
      a: numbers.of(term.a.buffer),
      b: numbers.of(term.b.buffer),
      parts: partsOf(term.b).map(({ buffer }) => numbers.of(buffer)),
    },
    isFirst: t === 0,
  }));
  const target = direct === null ? null : { operand: direct, argument: numbers.of(direct.buffer) };
  const epilogue =
    problem.epilogue && compileEpilogue(module, problem, problem.epilogue, layout.nBlock, options, numbers);
  const emitted = terms.map((term, t) => {
    const { a, b, k } = term;
    const isFew = skinny[t] === true;
    if (isQuantized(b)) {
      const gemv = isFew ? emitQuantizedGemv(module, { m, k, a, b, rowStride }, options.fma) : null;
      return { ...term, gemv, packB: isFew ? null : emitQuantizedPack(module, b, options.tile) };
    }
    const gemv = isFew ? emitGemv(module, { m, k, a, b, rowStride }, options.fma) : null;
    return { ...term, gemv, packB: null };
  });

  const parts = { m: Math.ceil(m / grid.mPer), n: Math.ceil(n / grid.nPer) };
  module.fn(name, STEP_PARAMS, [], (f, frame, args, chunk, scratch) => {
    const place = { frame, args, scratch };
    const step = { problem, grid, layout, rowStride, options, terms: emitted, target, epilogue, place };
    new MatmulEmitter(f, step).emit(chunk, parts);
  });
  const batchChunks = Math.ceil(product(batch) / grid.batchPerChunk);
  return {
    chunks: batchChunks * parts.m * parts.n,
    cost,
    scratchBytes: layout.bytes,
    buffers: numbers.buffers,
  };
}
