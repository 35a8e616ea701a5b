/**
 * Attention and its gradient, computed for one block of queries at a time (Dao et al., "FlashAttention", 2022): the scores of
 * that block with all keys stay in cache, and the matrix of all scores is never stored. The GEMM core computes the products.
 * Every chunk computes complete results, so results are bitwise the same for any number of threads.
 */
import type { LibraryCall, Operand } from "@tiedlora/kernels";
import type { Local, Module } from "../assembler.ts";
import {
  type AttentionOptions,
  Emitter,
  flipped,
  FLOP_PER_NS,
  PARALLEL_NS,
  SCORE_NS,
  ScratchSpace,
} from "./emitter.ts";
import { byteStride, geometryOf, ROW, rowAndColumn } from "./geometry.ts";
import { emitCopyRows, emitSoftmaxRows } from "./rows.ts";
import type { GemmDType } from "../matmul/gemm.ts";
import { tileColumns } from "../matmul/gemm.ts";
import { i32 } from "../instructions.ts";
import { Arguments, STEP_PARAMS, type StepFunction } from "../step.ts";

export type AttentionCall = Extract<LibraryCall, { name: "attention" }>;

/** Adds the step's function to the module under `name`. */
export function compileAttention(
  module: Module,
  name: string,
  call: AttentionCall,
  options: AttentionOptions,
): StepFunction {
  const { params } = call;
  const g = geometryOf(params, options.tile);
  const { batch, heads, kvHeads, q, kv, d, causal } = params;
  const [Q, K, V] = call.inputs as [Operand, Operand, Operand];
  const bias = params.bias ? (call.inputs[3] as Operand) : null;
  const [O, L] = call.outputs as [Operand, Operand];
  const numbers = new Arguments([...call.inputs, ...call.outputs]);
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
  const units = batch * heads;
  const blocks = Math.ceil(q / g.queries);
  const cost = units * q * kv * (causal ? 0.6 : 1) * ((4 * d) / FLOP_PER_NS + SCORE_NS);
  const parallel = options.threads > 1 && cost >= PARALLEL_NS;
  const parts = parallel ? Math.min(blocks, Math.ceil((4 * options.threads) / units)) : 1;
  const rowsOf = emitSoftmaxRows(module, g, options.fma, { L, bias });
  const copy = emitCopyRows(module, g, options.fma, O, true);

  module.fn(name, STEP_PARAMS, [], (f, frame, args, chunk, scratch) => {
    const e = new Emitter(f, g, options, { frame, args, scratch, spare: panels.spare, numbers });
    const unit = f.local("i32");
    const [from, to] = parallel ? [i32.div_u(chunk, parts), 1] : [i32.const(0), units];
    const start = f.local("i32", from);
    f.for(unit, start, i32.add(start, to), 1, () => {
      const [b, h] = [f.bind(i32.div_u(unit, heads)), f.bind(i32.rem_u(unit, heads))];
      const keyHead = f.bind(i32.div_u(h, heads / kvHeads));
      e.pack("B", K.dtype as GemmDType, e.at(panels.keys), e.head(K, b, keyHead), rowAndColumn(K), kv, d);
      e.pack(
        "B",
        V.dtype as GemmDType,
        e.at(panels.values),
        e.head(V, b, keyHead),
        flipped(rowAndColumn(V)),
        d,
        kv,
      );
      const origins = { Q: e.head(Q, b, h), O: e.head(O, b, h), L: e.head(L, b, h) };
      const biasOrigin = bias === null ? null : e.head(bias, b, h);
      e.blocks(parts > 1 ? i32.rem_u(chunk, parts) : 0, parts, (i0, rows, keys) => {
        const queryAt = f.bind(i32.add(origins.Q, i32.mul(i0, byteStride(Q, ROW))));
        const columns = e.roundUp(keys, tileColumns(g.tile));
        const scores = e.at(panels.scores);
        e.multiplyRows(Q, queryAt, rows, e.at(panels.keys), scores, columns, e.at(panels.queries));
        const lAt = i32.add(origins.L, i32.mul(i0, byteStride(L, ROW)));
        const biasAt = bias === null ? 0 : i32.add(biasOrigin as Local, i32.mul(i0, byteStride(bias, ROW)));
        f.call(rowsOf, scores, rows, i0, columns, lAt, e.at(panels.factors), biasAt);
        const results = e.at(panels.results);
        const wholeRows = e.roundUp(rows, g.tile.rows);
        e.multiplyScores(scores, e.at(panels.values), results, wholeRows, keys, g.keyDepth);
        const outAt = i32.add(origins.O, i32.mul(i0, byteStride(O, ROW)));
        f.call(copy, results, outAt, rows, e.at(panels.factors));
      });
    });
  });
  return { chunks: parallel ? units * parts : 1, cost, scratchBytes: space.bytes, buffers: numbers.buffers };
}
