/**
 * Attention and its gradient, computed for one block of queries at a time (Dao et al., "FlashAttention", 2022): the scores of
 * that block with all keys stay in cache, and the matrix of all scores is never stored. The GEMM core computes the products.
 * Every chunk computes complete results, so results are bitwise the same for any number of threads.
 */
import type { LibraryCall, Operand } from "@tiedlora/kernels";
import type { Callable, Expr, Fn, Int, Local, Module } from "../assembler.ts";
import { BATCH, byteStride, ceilTo, type Geometry, geometryOf, HEAD, ROW, rowAndColumn } from "./geometry.ts";
import { emitCopyRows, emitGradRows, emitSoftmaxRows } from "./rows.ts";
import type { GemmDType, Tile } from "../matmul/gemm.ts";
import { fitsInPlace, packRest, tileColumns } from "../matmul/gemm.ts";
import { i32, memory } from "../instructions.ts";
import type { GemmImports } from "../matmul/imports.ts";
import { Arguments, type CodegenOptions, operandAddress, STEP_PARAMS, type StepFunction } from "../step.ts";

export type AttentionCall = Extract<LibraryCall, { name: "attention" }>;
export type AttentionGradCall = Extract<LibraryCall, { name: "attentionGrad" }>;

export interface AttentionOptions extends CodegenOptions {
  readonly tile: Tile;
  readonly gemm: GemmImports;
}

/** Used to estimate costs: floating-point operations per nanosecond, and nanoseconds for the exponential of a score. */
const FLOP_PER_NS = 40;
const SCORE_NS = 1;
const PARALLEL_NS = 20_000;

/** Hands out parts of a thread's scratch memory. */
class ScratchSpace {
  bytes = 0;
  take(bytes: number): number {
    const start = this.bytes;
    this.bytes += ceilTo(bytes, 64);
    return start;
  }
}

/** Emits the code that the forward pass and the gradient share: addresses of heads, packing, products of packed panels. */
class Emitter {
  readonly f: Fn;
  readonly g: Geometry;
  readonly #gemm: GemmImports;
  readonly #scratch: Local;
  readonly #spare: number;
  readonly #start: (operand: Operand) => Expr;

  constructor(
    f: Fn,
    g: Geometry,
    options: AttentionOptions,
    place: { frame: Local; args: Local; scratch: Local; spare: number; numbers: Arguments },
  ) {
    this.f = f;
    this.g = g;
    this.#gemm = options.gemm;
    this.#scratch = place.scratch;
    this.#spare = place.spare;
    this.#start = (operand) => operandAddress(operand, place.numbers.of(operand.buffer), place, options);
  }

  at(offset: number): Local {
    return this.f.bind(i32.add(this.#scratch, offset));
  }

  least(a: Expr, b: number): Local {
    const x = this.f.local("i32", a);
    this.f.set(x, i32.select(x, b, i32.lt_s(x, b)));
    return x;
  }

  /** The address of [b, h, 0, …]. */
  head(operand: Operand, b: Int, h: Int): Local {
    const [batchStride, headStride] = [byteStride(operand, BATCH), byteStride(operand, HEAD)];
    return this.f.local(
      "i32",
      i32.add(i32.add(this.#start(operand), i32.mul(b, batchStride)), i32.mul(h, headStride)),
    );
  }

  /** Packs `rows` rows of `depth` numbers; strides in bytes. */
  pack(
    side: "A" | "B",
    dtype: GemmDType,
    to: Int,
    from: Int,
    [rowStride, depthStride]: readonly [number, number],
    rows: Int,
    depth: Int,
  ): void {
    this.f.call(this.#gemm.pack(side, dtype), to, from, rowStride, depthStride, rows, depth);
  }

  /** c (+)= a · b for panels that are packed with depth `depth`; c must have room for whole tiles. */
  multiply(a: Int, b: Int, c: Int, stride: number, rows: Int, columns: Int, depth: Int, add: Int): void {
    this.f.call(this.#gemm.block, a, b, c, stride, rows, columns, depth, add, this.at(this.#spare));
  }

  /**
   * c = a · b, where a is `rows` rows of an operand, each as wide as a head, that start at `from`; `spare` is memory to pack
   * them in.
   */
  multiplyRows(a: Operand, from: Local, rows: Local, b: Int, c: Local, columns: Int, spare: Local): void {
    const { f } = this;
    const gemm = this.#gemm;
    const { params, tile, scoreStride } = this.g;
    const [rowStride, stride] = rowAndColumn(a);
    const pack = gemm.pack("A", a.dtype as GemmDType);
    if (!fitsInPlace(a, params.d, tile)) {
      f.call(pack, spare, from, rowStride, stride, rows, params.d);
      this.multiply(spare, b, c, scoreStride, this.roundUp(rows, tile.rows), columns, params.d, 0);
      return;
    }
    packRest(f, pack, tile, { to: spare, from, rowStride, rows, k: params.d });
    const block = [b, c, scoreStride, rows, columns, params.d, 0, this.at(this.#spare)];
    f.call(gemm.blockInPlace, from, rowStride, spare, ...block);
  }

  /**
   * c = panel · b, where the panel holds scores, with zeros for hidden keys, and b is packed with depth `packedDepth`, of
   * which the first `depth` are used.
   */
  multiplyScores(panel: Local, b: Local, c: Local, rows: Int, depth: Expr, packedDepth: number): void {
    const { f, g } = this;
    const columns = tileColumns(g.tile);
    const whole = this.roundUp(depth, g.tile.unroll);
    for (let j = 0; j < g.widthColumns; j += columns) {
      const strip = i32.add(b, 4 * j * packedDepth);
      const to = f.bind(i32.add(c, 4 * j));
      const block = [strip, to, g.widthStride, rows, columns, whole, 0, this.at(this.#spare)];
      f.call(this.#gemm.blockInPlace, panel, g.scoreStride, panel, ...block);
    }
  }

  /**
   * Runs `body` for the blocks of queries `first`, `first + step`, …, with the block's first query, its number of queries,
   * and the number of keys that they see.
   */
  blocks(first: Int, step: number, body: (i0: Local, rows: Local, keys: Local) => void): void {
    const { f, g } = this;
    const { q, kv, causal } = g.params;
    const i0 = f.local("i32");
    f.for(i0, i32.mul(first, g.queries), q, step * g.queries, () => {
      const rows = this.least(i32.sub(q, i0), g.queries);
      const keys = f.local("i32", kv);
      if (causal) {
        f.set(keys, this.least(i32.add(i32.add(i0, rows), kv - q), kv));
        f.set(keys, i32.select(keys, 1, i32.ge_s(keys, 1)));
      }
      body(i0, rows, keys);
    });
  }

  /** `x` rounded up to a multiple of `step`. */
  roundUp(x: Expr, step: number): Local {
    return this.f.bind(i32.mul(i32.div_u(i32.add(x, step - 1), step), step));
  }
}

const flipped = ([row, column]: readonly [number, number]): [number, number] => [column, row];

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

/** Adds the step's function to the module under `name`. A chunk is one key head with all queries that attend to it. */
export function compileAttentionGrad(
  module: Module,
  name: string,
  call: AttentionGradCall,
  options: AttentionOptions,
): StepFunction {
  const { params } = call;
  const g = geometryOf(params, options.tile);
  const { batch, heads, kvHeads, q, kv, d, causal } = params;
  const [Q, K, V] = call.inputs as [Operand, Operand, Operand];
  const bias = params.bias ? (call.inputs[3] as Operand) : null;
  const [O, L, dO] = call.inputs.slice(-3) as [Operand, Operand, Operand];
  const [dQ, dK, dV] = call.outputs as [Operand, Operand, Operand];
  const numbers = new Arguments([...call.inputs, ...call.outputs]);
  const space = new ScratchSpace();
  const { rows: tileRows } = g.tile;
  const depth = ceilTo(g.queries, g.tile.unroll);
  const wide = 4 * g.widthDepth * g.keyColumns;
  const keyRows = ceilTo(kv, tileRows);
  const panels = {
    keys: space.take(wide),
    values: space.take(wide),
    keysDeep: space.take(4 * g.keyDepth * g.widthColumns),
    queries: space.take(4 * g.widthDepth * g.queries),
    queriesDeep: space.take(4 * depth * g.widthColumns),
    gradsDeep: space.take(4 * depth * g.widthColumns),
    scores: space.take(g.scoreStride * g.queries),
    slopes: space.take(g.scoreStride * g.queries),
    packed: space.take(4 * depth * keyRows),
    results: space.take(g.widthStride * g.queries),
    dK: space.take(g.widthStride * keyRows),
    dV: space.take(g.widthStride * keyRows),
    spare: space.take(4 * tileRows * tileColumns(g.tile)),
  };
  const units = batch * kvHeads;
  const group = heads / kvHeads;
  const cost = batch * heads * q * kv * (causal ? 0.6 : 1) * ((10 * d) / FLOP_PER_NS + SCORE_NS);
  const parallel = options.threads > 1 && cost >= PARALLEL_NS;
  const rowsOf = emitGradRows(module, g, options.fma, { L, bias, O, dO });
  const copyOf = (operand: Operand): Callable => emitCopyRows(module, g, options.fma, operand, false);
  const copies = { dQ: copyOf(dQ), dK: copyOf(dK), dV: copyOf(dV) };

  module.fn(name, STEP_PARAMS, [], (f, frame, args, chunk, scratch) => {
    const e = new Emitter(f, g, options, { frame, args, scratch, spare: panels.spare, numbers });
    const type = (o: Operand): GemmDType => o.dtype as GemmDType;
    const [unit, member] = [f.local("i32"), f.local("i32")];
    const start = f.local("i32", parallel ? chunk : 0);
    f.for(unit, start, i32.add(start, parallel ? 1 : units), 1, () => {
      const [b, keyHead] = [f.bind(i32.div_u(unit, kvHeads)), f.bind(i32.rem_u(unit, kvHeads))];
      e.pack("B", type(K), e.at(panels.keys), e.head(K, b, keyHead), rowAndColumn(K), kv, d);
      e.pack("B", type(V), e.at(panels.values), e.head(V, b, keyHead), rowAndColumn(V), kv, d);
      e.pack("B", type(K), e.at(panels.keysDeep), e.head(K, b, keyHead), flipped(rowAndColumn(K)), d, kv);
      memory.fill(f, e.at(panels.dK), 0, g.widthStride * keyRows);
      memory.fill(f, e.at(panels.dV), 0, g.widthStride * keyRows);
      f.for(member, 0, group, 1, () => {
        const h = f.bind(i32.add(i32.mul(keyHead, group), member));
        const origin = (o: Operand): Local => e.head(o, b, h);
        const from = { Q: origin(Q), dO: origin(dO), O: origin(O), L: origin(L), dQ: origin(dQ) };
        const biasOrigin = bias === null ? null : origin(bias);
        e.blocks(0, 1, (i0, rows, keys) => {
          const rowAt = (o: Operand, head: Local): Local =>
            f.bind(i32.add(head, i32.mul(i0, byteStride(o, ROW))));
          const [queryAt, gradAt] = [rowAt(Q, from.Q), rowAt(dO, from.dO)];
          const wholeRows = e.roundUp(rows, tileRows);
          const columns = e.roundUp(keys, tileColumns(g.tile));
          const wholeKeys = e.roundUp(keys, tileRows);
          const [scores, slopes] = [e.at(panels.scores), e.at(panels.slopes)];
          const packed = e.at(panels.packed);
          e.multiplyRows(Q, queryAt, rows, e.at(panels.keys), scores, columns, e.at(panels.queries));
          e.multiplyRows(dO, gradAt, rows, e.at(panels.values), slopes, columns, e.at(panels.queries));
          const lAt = i32.add(from.L, i32.mul(i0, byteStride(L, ROW)));
          const biasAt = bias === null ? 0 : rowAt(bias, biasOrigin as Local);
          f.call(rowsOf, scores, slopes, rows, i0, columns, lAt, rowAt(O, from.O), gradAt, biasAt);
          // dV += Pᵀ dO, dK += dSᵀ Q
          const widths = [g.widthStride, wholeKeys, g.widthColumns, rows, 1] as const;
          e.pack("B", type(dO), e.at(panels.gradsDeep), gradAt, flipped(rowAndColumn(dO)), d, rows);
          e.pack("A", "f32", packed, scores, [4, g.scoreStride], keys, rows);
          e.multiply(packed, e.at(panels.gradsDeep), e.at(panels.dV), ...widths);
          e.pack("B", type(Q), e.at(panels.queriesDeep), queryAt, flipped(rowAndColumn(Q)), d, rows);
          e.pack("A", "f32", packed, slopes, [4, g.scoreStride], keys, rows);
          e.multiply(packed, e.at(panels.queriesDeep), e.at(panels.dK), ...widths);
          // dQ = dS K
          const results = e.at(panels.results);
          e.multiplyScores(slopes, e.at(panels.keysDeep), results, wholeRows, keys, g.keyDepth);
          f.call(copies.dQ, results, rowAt(dQ, from.dQ), rows, 0);
        });
      });
      f.call(copies.dK, e.at(panels.dK), e.head(dK, b, keyHead), kv, 0);
      f.call(copies.dV, e.at(panels.dV), e.head(dV, b, keyHead), kv, 0);
    });
  });
  return { chunks: parallel ? units : 1, cost, scratchBytes: space.bytes, buffers: numbers.buffers };
}
