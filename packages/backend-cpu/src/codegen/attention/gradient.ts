/**
 * The gradient of attention. A chunk is one key head with all queries that attend to it. Where that leaves threads idle, since there
 * are few heads, each head is cut twice: by blocks of queries for the gradient of the queries, and by ranges of keys for those of keys
 * and values. The scores are then computed twice, but every chunk still computes complete results, of the same bits.
 */
import type { LibraryCall, Operand } from "@tiedlora/kernels";
import type { Callable, Int, Local, Module } from "../assembler.ts";
import {
  type AttentionOptions,
  Emitter,
  flipped,
  FLOP_PER_NS,
  PARALLEL_NS,
  SCORE_NS,
  ScratchSpace,
} from "./emitter.ts";
import { byteStride, ceilTo, COLUMN, type Geometry, geometryOf, ROW } from "./geometry.ts";
import { attentionKey, attentionNumbers, type AttentionStep, distinct, namesOf } from "./numbers.ts";
import { emitCopyRows, emitGradRows } from "./rows.ts";
import type { GemmDType } from "../matmul/gemm.ts";
import { tileColumns } from "../matmul/gemm.ts";
import { i32, memory } from "../instructions.ts";
import type { GemmImports } from "../matmul/imports.ts";
import { Arguments, numbersAt, STEP_PARAMS, type StepFunction } from "../step.ts";

export type AttentionGradCall = Extract<LibraryCall, { name: "attentionGrad" }>;

/** Floating-point operations per element of scores and of a head's width: all gradients at once; in the two cuts together. */
const [AT_ONCE, CUT] = [10, 14];

/** What a chunk computes: all gradients of a key head; those of some blocks of its queries; those of a range of its keys. */
type Cut = "none" | "queries" | "keys";

/** Into how many parts each of `units` key heads is cut. */
function partsOf(units: number, threads: number, blocks: number): number {
  const rounds = Math.ceil(units / threads);
  const parts = Math.min(blocks, Math.ceil((4 * threads) / units));
  const pays = 1.1 * CUT * (units / threads) < AT_ONCE * rounds;
  return parts > 1 && pays ? parts : 1;
}

/** Keys per range: as many as whole tiles hold as rows and as columns, so that no element is summed in another order. */
function rangeOf({ params, tile }: Geometry, parts: number): number {
  const [rows, columns] = [tile.rows, tileColumns(tile)];
  let step = columns;
  while (step % rows !== 0) step += columns;
  return Math.min(ceilTo(params.kv, rows), ceilTo(Math.ceil(params.kv / parts), step));
}

/** Where a thread's scratch memory holds which panel. */
function panelsOf(g: Geometry) {
  const space = new ScratchSpace();
  const depth = ceilTo(g.queries, g.tile.unroll);
  const keyRows = ceilTo(g.params.kv, g.tile.rows);
  const panels = {
    keys: space.take(4 * g.widthDepth * g.keyColumns),
    values: space.take(4 * g.widthDepth * g.keyColumns),
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
    spare: space.take(4 * g.tile.rows * tileColumns(g.tile)),
  };
  return { bytes: space.bytes, panels };
}

type Panel = keyof ReturnType<typeof panelsOf>["panels"];

const gemmType = ({ dtype }: Operand): GemmDType => dtype as GemmDType;

/** The operands by name. */
function operandsOf({ params, inputs, outputs }: AttentionGradCall) {
  const [Q, K, V] = inputs as [Operand, Operand, Operand];
  const [O, L, dO] = inputs.slice(-3) as [Operand, Operand, Operand];
  const [dQ, dK, dV] = outputs as [Operand, Operand, Operand];
  return { Q, K, V, O, L, dO, dQ, dK, dV, bias: params.bias ? (inputs[3] as Operand) : null };
}

/** Emits the code of a chunk. */
class GradEmitter {
  readonly #e: Emitter;
  readonly #operands: ReturnType<typeof operandsOf>;
  readonly #args: Local;
  readonly #rowsOf: Callable;
  readonly #copies: { readonly [to in "dQ" | "dK" | "dV"]: Callable };

  constructor(
    e: Emitter,
    operands: ReturnType<typeof operandsOf>,
    args: Local,
    functions: {
      readonly rowsOf: Callable;
      readonly copies: { readonly [to in "dQ" | "dK" | "dV"]: Callable };
    },
  ) {
    this.#e = e;
    this.#operands = operands;
    this.#args = args;
    this.#rowsOf = functions.rowsOf;
    this.#copies = functions.copies;
  }

  #panel(name: Panel): Local {
    return this.#e.at(name);
  }

  /** The gradients of key head `unit`, or a part of them. */
  head(unit: Local, cut: Cut, part: Int): void {
    const e = this.#e;
    const { f, g, sizes } = e;
    const { heads, kvHeads, d } = g.params;
    const { K, V, dK, dV } = this.#operands;
    const [kv, range] = [sizes.int("kv"), sizes.int("range")];
    const [b, keyHead] = [f.bind(i32.div_u(unit, kvHeads)), f.bind(i32.rem_u(unit, kvHeads))];
    const first = f.bind(cut === "keys" ? i32.mul(part, range) : i32.const(0));
    const count = cut === "keys" ? e.least(i32.sub(kv, first), range) : f.local("i32", kv);
    const from = (o: Operand): Local =>
      f.bind(i32.add(e.head(o, b, keyHead), i32.mul(first, sizes.stride(o, ROW))));
    const work = (): void => {
      e.pack("B", gemmType(K), this.#panel("keys"), from(K), sizes.rowAndColumn(K), count, d);
      e.pack("B", gemmType(V), this.#panel("values"), from(V), sizes.rowAndColumn(V), count, d);
      if (cut !== "keys")
        e.pack("B", gemmType(K), this.#panel("keysDeep"), from(K), flipped(sizes.rowAndColumn(K)), d, kv);
      const sums = sizes.int(cut === "keys" ? "rangeBytes" : "keyBytes");
      if (cut !== "queries")
        for (const name of ["dK", "dV"] as const) memory.fill(f, this.#panel(name), 0, sums);
      const member = f.local("i32");
      f.for(member, 0, heads / kvHeads, 1, () => {
        const h = f.bind(i32.add(i32.mul(keyHead, heads / kvHeads), member));
        this.#queries(b, h, { cut, part, first, count });
      });
      if (cut === "queries") return;
      f.call(this.#copies.dK, this.#args, this.#panel("dK"), from(dK), count, 0);
      f.call(this.#copies.dV, this.#args, this.#panel("dV"), from(dV), count, 0);
    };
    if (cut === "keys")
      f.if(i32.gt_s(count, 0), work); // the last ranges may have no keys
    else work();
  }

  /** What the queries of head `h` contribute, block by block, given the range of keys from `first`. */
  #queries(
    b: Local,
    h: Local,
    keys: { readonly cut: Cut; readonly part: Int; readonly first: Local; readonly count: Local },
  ): void {
    const e = this.#e;
    const { f, g, sizes } = e;
    const { cut, part, first, count } = keys;
    const { Q, O, L, dO, dQ, bias } = this.#operands;
    const origins = new Map([Q, O, L, dO, dQ, ...(bias ? [bias] : [])].map((o) => [o, e.head(o, b, h)]));
    e.blocks(cut === "queries" ? part : 0, cut === "queries" ? "step" : "queries", (i0, rows, visible) => {
      const rowAt = (o: Operand): Local =>
        f.bind(i32.add(origins.get(o)!, i32.mul(i0, sizes.stride(o, ROW))));
      const seen = cut === "keys" ? f.local("i32", i32.sub(visible, first)) : visible;
      if (cut === "keys") f.set(seen, i32.select(seen, count, i32.lt_s(seen, count)));
      const work = (): void => {
        const [queryAt, gradAt] = [rowAt(Q), rowAt(dO)];
        const columns = e.roundUp(seen, tileColumns(g.tile));
        const [scores, slopes] = [this.#panel("scores"), this.#panel("slopes")];
        e.multiplyRows(Q, queryAt, rows, this.#panel("keys"), scores, columns, this.#panel("queries"));
        e.multiplyRows(dO, gradAt, rows, this.#panel("values"), slopes, columns, this.#panel("queries"));
        const biasAt = bias === null ? 0 : i32.add(rowAt(bias), i32.mul(first, byteStride(bias, COLUMN)));
        f.call(
          this.#rowsOf,
          this.#args,
          scores,
          slopes,
          rows,
          i0,
          columns,
          rowAt(L),
          rowAt(O),
          gradAt,
          biasAt,
          first,
          count,
        );
        // dV += Pᵀ dO, dK += dSᵀ Q, dQ = dS K
        if (cut !== "queries") {
          this.#addColumns("dV", scores, [dO, gradAt, "gradsDeep"], seen, rows);
          this.#addColumns("dK", slopes, [Q, queryAt, "queriesDeep"], seen, rows);
        }
        if (cut === "keys") return;
        const results = this.#panel("results");
        e.multiplyScores(slopes, this.#panel("keysDeep"), results, e.roundUp(rows, g.tile.rows), seen);
        f.call(this.#copies.dQ, this.#args, results, rowAt(dQ), rows, 0);
      };
      if (cut === "keys")
        f.if(i32.gt_s(seen, 0), work); // with a causal mask, early queries see none of the late keys
      else work();
    });
  }

  /** to += panelᵀ · x, for the rows of `x` that start at `at` and the `keys` columns of a panel of scores. */
  #addColumns(
    to: "dK" | "dV",
    panel: Local,
    [x, at, deep]: readonly [Operand, Local, Panel],
    keys: Local,
    rows: Local,
  ): void {
    const e = this.#e;
    const { g, sizes } = e;
    const packed = this.#panel("packed");
    e.pack("B", gemmType(x), this.#panel(deep), at, flipped(sizes.rowAndColumn(x)), g.params.d, rows);
    e.pack("A", "f32", packed, panel, [4, sizes.int("scoreStride")], keys, rows);
    const wholeKeys = e.roundUp(keys, g.tile.rows);
    e.multiply(packed, this.#panel(deep), this.#panel(to), g.widthStride, wholeKeys, g.widthColumns, rows, 1);
  }
}

/** The step's function. */
export function planAttentionGrad(given: AttentionGradCall, options: AttentionOptions): StepFunction {
  const call = distinct(given);
  const { params } = call;
  const { threads, tile } = options;
  const g = geometryOf(params, tile);
  const { batch, heads, kvHeads, q, kv, d, causal } = params;
  const own = new Arguments([...call.inputs, ...call.outputs]);
  const { bytes, panels } = panelsOf(g);
  const units = batch * kvHeads;
  const cost = batch * heads * q * kv * (causal ? 0.6 : 1) * ((AT_ONCE * d) / FLOP_PER_NS + SCORE_NS);
  const parallel = threads > 1 && cost >= PARALLEL_NS;
  const parts = parallel ? partsOf(units, threads, Math.ceil(q / g.queries)) : 1;
  const range = rangeOf(g, parts);
  const names = namesOf(call);
  const numbers = attentionNumbers(g, names, panels, {
    units,
    parts,
    cutUnits: units * parts,
    step: parts * g.queries,
    range,
    rangeBytes: g.widthStride * range,
    keyBytes: g.widthStride * ceilTo(kv, tile.rows),
  });
  return {
    key: `${attentionKey(call, g, (buffer) => own.of(buffer))} ${parallel} ${parts > 1}`,
    numbers,
    chunks: parts > 1 ? 2 * units * parts : parallel ? units : 1,
    cost,
    scratchBytes: bytes,
    buffers: own.buffers,
    emit: (module, name, isGeneral) => {
      const step = { g, fma: options.fma, numbers, names, isGeneral, at: numbersAt(own.buffers) };
      emitAttentionGrad(module, name, call, step, options.gemm, own, { parallel, isCut: parts > 1 });
    },
  };
}

function emitAttentionGrad(
  module: Module,
  name: string,
  call: AttentionGradCall,
  step: AttentionStep,
  gemm: GemmImports,
  own: Arguments,
  { parallel, isCut }: { readonly parallel: boolean; readonly isCut: boolean },
): void {
  const operands = operandsOf(call);
  const rowsOf = emitGradRows(module, step, operands);
  const copyOf = (operand: Operand): Callable => emitCopyRows(module, step, operand, false);
  const copies = { dQ: copyOf(operands.dQ), dK: copyOf(operands.dK), dV: copyOf(operands.dV) };
  module.fn(name, STEP_PARAMS, [], (f, frame, args, chunk, scratch) => {
    const e = new Emitter(f, step, gemm, { frame, args, scratch, numbers: own });
    const emitter = new GradEmitter(e, operands, args, { rowsOf, copies });
    const unit = f.local("i32");
    if (!isCut) {
      const start = f.local("i32", parallel ? chunk : 0);
      const count = parallel ? 1 : e.sizes.int("units");
      f.for(unit, start, i32.add(start, count), 1, () => emitter.head(unit, "none", 0));
      return;
    }
    const [parts, cutUnits] = [e.sizes.int("parts"), e.sizes.int("cutUnits")];
    const place = f.bind(i32.rem_u(chunk, cutUnits));
    f.set(unit, i32.div_u(place, parts));
    const part = f.bind(i32.rem_u(place, parts));
    f.if(i32.lt_s(chunk, cutUnits), () => emitter.head(unit, "queries", part));
    f.if(i32.ge_s(chunk, cutUnits), () => emitter.head(unit, "keys", part));
  });
}
