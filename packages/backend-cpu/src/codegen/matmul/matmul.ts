/**
 * The matmul step: a matrix product, cut into chunks for threads and blocked around the GEMM core. Chunks are parts of C, and k is cut at
 * fixed places, so the result is bitwise the same however C is cut.
 */
import { partsOf } from "@tiedlora/kernels";
import { Sizes } from "../sizes.ts";
import { Arguments, numbersAt, STEP_PARAMS, type StepFunction } from "../step.ts";
import { MatmulEmitter, type MatmulOptions } from "./emit.ts";
import { planEpilogue } from "./epilogue.ts";
import { fitsInPlace } from "./gemm.ts";
import { emitGemv, isSkinny } from "./gemv.ts";
import { type Blocking, matmulKey, matmulNumbers } from "./numbers.ts";
import { costOf, gridOf, layoutOf, type MatmulCall, problemOf, product, rowStrideOf } from "./plan.ts";
import { emitQuantizedPack, isQuantized } from "./quantized.ts";
import { emitQuantizedGemv, isSkinnyQuantized } from "./quantized-gemv.ts";

/** The step's function. */
export function planMatmul(call: MatmulCall, options: MatmulOptions): StepFunction {
  const { tile } = options;
  const problem = problemOf(call);
  const { m, n, batch, direct } = problem;
  const skinny = problem.terms.map(({ a, b }) =>
    isQuantized(b) ? isSkinnyQuantized(m, a, b) : isSkinny(m, a, b),
  );
  const cost = costOf(problem, skinny);
  const grid = gridOf(problem, cost, tile, options.threads);
  const layout = layoutOf(problem, grid, tile, skinny);
  const rowStride = rowStrideOf(problem, layout);
  const parts = { m: Math.ceil(m / grid.mPer), n: Math.ceil(n / grid.nPer) };
  const blocking: Blocking = { problem, grid, layout, rowStride, parts };

  const own = new Arguments();
  const terms = problem.terms.map((term, t) => ({
    ...term,
    arguments: {
      a: own.of(term.a.buffer),
      b: own.of(term.b.buffer),
      parts: partsOf(term.b).map(({ buffer }) => own.of(buffer)),
    },
    number: t,
    isInPlace: fitsInPlace(term.a, term.k, tile),
  }));
  const target = direct === null ? null : { operand: direct, argument: own.of(direct.buffer) };
  const numbers = matmulNumbers(blocking);
  const panel = { panelColumns: layout.nBlock, wide: options.wide };
  const epilogue = problem.epilogue && planEpilogue(problem, problem.epilogue, panel, own, numbers);
  const key = matmulKey(blocking, skinny, tile, (buffer) => own.of(buffer));
  return {
    key: `matmul ${key} ${epilogue?.key ?? ""}`,
    numbers,
    chunks: Math.ceil(product(batch) / grid.batchPerChunk) * parts.m * parts.n,
    cost,
    scratchBytes: layout.bytes,
    buffers: own.buffers,
    emit: (module, name, isGeneral) => {
      const at = numbersAt(own.buffers);
      const emitted = terms.map((term, t) => {
        const { a, b, k } = term;
        const isFew = skinny[t] === true;
        if (isQuantized(b)) {
          const gemv = isFew ? emitQuantizedGemv(module, { m, k, a, b, rowStride }, options.fma) : null;
          return { ...term, gemv, packB: isFew ? null : emitQuantizedPack(module, b, tile) };
        }
        const gemv = isFew ? emitGemv(module, { m, k, a, b, rowStride }, options.fma) : null;
        return { ...term, gemv, packB: null };
      });
      const finish = epilogue?.emit(module, { numbers, isGeneral, at }, options.fma) ?? null;
      module.fn(name, STEP_PARAMS, [], (f, frame, args, chunk, scratch) => {
        const sizes = new Sizes(f, numbers, isGeneral ? args : null, at);
        const place = { frame, args, scratch };
        const step = { blocking, sizes, options, terms: emitted, target, epilogue: finish, place };
        new MatmulEmitter(f, step).emit(chunk);
      });
    },
  };
}
