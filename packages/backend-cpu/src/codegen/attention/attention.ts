/**
 * Attention and its gradient, computed for one block of queries at a time (Dao et al., "FlashAttention", 2022): the scores of
 * that block with all keys stay in cache, and the matrix of all scores is never stored. The GEMM core computes the products.
 * Every chunk computes complete results, so results are bitwise the same for any number of threads.
 */
import type { LibraryCall, Operand } from "@tiedlora/kernels";
import type { Expr, Local, Module } from "../assembler.ts";
import {
  type AttentionOptions,
  Emitter,
  flipped,
  FLOP_PER_NS,
  PARALLEL_NS,
  SCORE_NS,
  ScratchSpace,
} from "./emitter.ts";
import { type Geometry, geometryOf, ROW } from "./geometry.ts";
import { attentionKey, attentionNumbers, type AttentionStep, distinct, namesOf } from "./numbers.ts";
import { emitCopyRows, emitSoftmaxRows } from "./rows.ts";
import type { GemmDType } from "../matmul/gemm.ts";
import { tileColumns } from "../matmul/gemm.ts";
import type { GemmImports } from "../matmul/imports.ts";
import { i32 } from "../instructions.ts";
import { Arguments, numbersAt, STEP_PARAMS, type StepFunction } from "../step.ts";

export type AttentionCall = Extract<LibraryCall, { name: "attention" }>;

/** The step's function. */
export function planAttention(given: AttentionCall, options: AttentionOptions): StepFunction {
  const call = distinct(given);
  const { params } = call;
  const g = geometryOf(params, options.tile);
  const { batch, heads, q, kv, d, causal } = params;
  const own = new Arguments([...call.inputs, ...call.outputs]);
  const { bytes, panels } = panelsOf(g);
  const units = batch * heads;
  const blocks = Math.ceil(q / g.queries);
  const cost = units * q * kv * (causal ? 0.6 : 1) * ((4 * d) / FLOP_PER_NS + SCORE_NS);
  const parallel = options.threads > 1 && cost >= PARALLEL_NS;
  const parts = parallel ? Math.min(blocks, Math.ceil((4 * options.threads) / units)) : 1;
  const names = namesOf(call);
  const numbers = attentionNumbers(g, names, panels, { units, parts, step: parts * g.queries });
  return {
    key: `${attentionKey(call, g, (buffer) => own.of(buffer))} ${parallel} ${parts > 1}`,
    numbers,
    chunks: parallel ? units * parts : 1,
    cost,
    scratchBytes: bytes,
    buffers: own.buffers,
    emit: (module, name, isGeneral) => {
      const step = { g, fma: options.fma, numbers, names, isGeneral, at: numbersAt(own.buffers) };
      emitAttention(module, name, call, step, options.gemm, own, { parallel, isCut: parts > 1 });
    },
  };
}

/** Where a thread's scratch memory holds which panel. */
function panelsOf(g: Geometry) {
  const space = new ScratchSpace();
  const panels = {
    keys: space.take(4 * g.widthDepth * g.keyColumns),
    values: space.take(4 * g.keyDepth * g.widthColumns),
    queries: space.take(4 * g.widthDepth * g.queries),
    scores: space.take(g.scoreStride * g.queries),
    results: space.take(g.widthStride * g.queries),
    factors: space.take(4 * g.queries),
    spare: space.take(4 * g.tile.rows * tileColumns(g.tile)),
  };
  return { bytes: space.bytes, panels };
}

function emitAttention(
  module: Module,
  name: string,
  call: AttentionCall,
  step: AttentionStep,
  gemm: GemmImports,
  own: Arguments,
  { parallel, isCut }: { readonly parallel: boolean; readonly isCut: boolean },
): void {
  const { g } = step;
  const { heads, kvHeads, d } = g.params;
  const [Q, K, V] = call.inputs as [Operand, Operand, Operand];
  const bias = g.params.bias ? (call.inputs[3] as Operand) : null;
  const [O, L] = call.outputs as [Operand, Operand];
  const rowsOf = emitSoftmaxRows(module, step, { L, bias });
  const copy = emitCopyRows(module, step, O, true);
  module.fn(name, STEP_PARAMS, [], (f, frame, args, chunk, scratch) => {
    const e = new Emitter(f, step, gemm, { frame, args, scratch, numbers: own });
    const { sizes } = e;
    const [kv, partCount] = [sizes.int("kv"), sizes.int("parts")];
    const unit = f.local("i32");
    const [from, to] = parallel ? [i32.div_u(chunk, partCount), 1] : [i32.const(0), sizes.int("units")];
    const start = f.local("i32", from);
    f.for(unit, start, i32.add(start, to), 1, () => {
      const [b, h] = [f.bind(i32.div_u(unit, heads)), f.bind(i32.rem_u(unit, heads))];
      const keyHead = f.bind(i32.div_u(h, heads / kvHeads));
      const [keys, values] = [sizes.rowAndColumn(K), flipped(sizes.rowAndColumn(V))];
      e.pack("B", K.dtype as GemmDType, e.at("keys"), e.head(K, b, keyHead), keys, kv, d);
      e.pack("B", V.dtype as GemmDType, e.at("values"), e.head(V, b, keyHead), values, d, kv);
      const origins = { Q: e.head(Q, b, h), O: e.head(O, b, h), L: e.head(L, b, h) };
      const biasOrigin = bias === null ? null : e.head(bias, b, h);
      e.blocks(isCut ? i32.rem_u(chunk, partCount) : 0, "step", (i0, rows, seen) => {
        const rowOf = (origin: Local, operand: Operand): Expr =>
          i32.add(origin, i32.mul(i0, sizes.stride(operand, ROW)));
        const queryAt = f.bind(rowOf(origins.Q, Q));
        const columns = e.roundUp(seen, tileColumns(g.tile));
        const scores = e.at("scores");
        e.multiplyRows(Q, queryAt, rows, e.at("keys"), scores, columns, e.at("queries"));
        const lAt = rowOf(origins.L, L);
        const biasAt = bias === null ? 0 : rowOf(biasOrigin as Local, bias);
        f.call(rowsOf, args, scores, rows, i0, columns, lAt, e.at("factors"), biasAt);
        const results = e.at("results");
        const wholeRows = e.roundUp(rows, g.tile.rows);
        e.multiplyScores(scores, e.at("values"), results, wholeRows, seen);
        f.call(copy, args, results, rowOf(origins.O, O), rows, e.at("factors"));
      });
    });
  });
}
