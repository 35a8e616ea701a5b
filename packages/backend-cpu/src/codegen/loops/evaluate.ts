/**
 * The values of a nest's instructions. Each value is computed once, in the outermost loop where everything that it depends on
 * is known, and stays known to the end of that loop's body. The results of reductions are defined by the passes that compute
 * them.
 */
import type { Instr } from "@tiedlora/kernels";
import { at } from "../../assert.ts";
import type { Expr, Fn } from "../assembler.ts";
import { f32, f32x4, f64, i32, i32x4, v128 } from "../instructions.ts";
import type { VectorMath } from "../math.ts";
import type { Cursor } from "./cursor.ts";
import type { Dependences } from "./dependences.ts";
import { type Access, type Nest, typeOf } from "./nest.ts";
import type { LoopSizes } from "./numbers.ts";
import type { Operands } from "./operands.ts";
import type { Schedule } from "./schedule.ts";
import { binary, cast, constant, type LaneType, unary } from "./values.ts";

/** The nest, its schedule and the state of its loops, from which values are computed. */
export interface Sources {
  readonly nest: Nest;
  readonly plan: Schedule;
  readonly dependences: Dependences;
  readonly cursor: Cursor;
  readonly operands: Operands;
  readonly sizes: LoopSizes;
  /** The address of the run-time scalar in `slot`, an f64. */
  readonly scalar: (slot: number) => Expr;
}

export class Evaluator {
  readonly #f: Fn;
  readonly #math: VectorMath;
  readonly #sources: Sources;
  /**
   * By loop, the innermost last: the values that became known in it, either one vector per unrolled copy or one vector for
   * all copies.
   */
  readonly #scopes: Map<number, readonly Expr[]>[] = [new Map()];

  constructor(f: Fn, math: VectorMath, sources: Sources) {
    this.#f = f;
    this.#math = math;
    this.#sources = sources;
  }

  /** Runs `body`, which emits the body of a loop; values that become known in it are forgotten at its end. */
  scoped(body: () => void): void {
    this.#scopes.push(new Map());
    body();
    this.#scopes.pop();
  }

  define(i: number, vectors: readonly Expr[]): void {
    at(this.#scopes, this.#scopes.length - 1, "scope").set(i, vectors);
  }

  isKnown(i: number): boolean {
    return this.#find(i) !== undefined;
  }

  /** Vector `u` of the value of instruction `i`. */
  value(i: number, u: number): Expr {
    const vectors = this.#find(i);
    const value = vectors?.[vectors.length === 1 ? 0 : u];
    if (value === undefined) {
      throw new Error(
        `a bug in the CPU backend: instruction ${i} is used before it is computed; please report it`,
      );
    }
    return value;
  }

  /**
   * Computes the instructions of `needed` that belong at this loop depth and are not known yet; those that an earlier pass
   * `saved` are loaded instead.
   */
  prepare(needed: readonly number[], depth: number, saved?: ReadonlyMap<number, Access>): void {
    const { nest, dependences, cursor, operands } = this.#sources;
    for (const i of needed) {
      const instr = at(nest.body, i, "instruction");
      if (instr.op === "reduce" || dependences.depth[i] !== depth || this.isKnown(i)) continue;
      const copies = dependences.varies[i] === true ? cursor.cover.unroll : 1;
      const from = saved?.get(i);
      const vectors = Array.from({ length: copies }, (_, u) => {
        const value = from === undefined ? this.#compute(instr, i, u) : operands.load(from, u);
        return instr.op === "const" ? value : this.#f.bind(value);
      });
      this.define(i, vectors);
    }
  }

  #find(i: number): readonly Expr[] | undefined {
    return this.#scopes.findLast((scope) => scope.has(i))?.get(i);
  }

  #compute(instr: Instr, i: number, u: number): Expr {
    const [f, math] = [this.#f, this.#math];
    const { nest, operands } = this.#sources;
    const type = typeOf(nest.body, i);
    switch (instr.op) {
      case "const":
        return (type === "f32" ? this.#sources.sizes.number(i) : null) ?? constant(math, instr.value, type);
      case "scalar":
        return this.#scalar(instr.slot, type);
      case "index":
        return this.#index(at(nest.indexAxis, i, "instruction"), u);
      case "load":
      case "product": {
        const access = at(nest.loads, i, "instruction");
        return access === null ? constant(math, 0, type) : operands.load(access, u);
      }
      case "where":
        return v128.bitselect(this.value(instr.b, u), this.value(instr.c, u), this.value(instr.a, u));
      case "cast":
        return cast(math, this.value(instr.a, u), typeOf(nest.body, instr.a), instr.to);
      case "reduce":
        throw new Error("a bug in the CPU backend: reductions are computed by their pass; please report it");
      default: {
        const a = this.value(instr.a, u);
        if (!("b" in instr)) return unary(f, math, instr.op, typeOf(nest.body, instr.a), a);
        const by = at(nest.body, instr.b, "instruction");
        const number = by.op === "const" ? by.value : null;
        return binary(f, math, instr.op, typeOf(nest.body, instr.a), a, this.value(instr.b, u), number);
      }
    }
  }

  #scalar(slot: number, type: LaneType): Expr {
    const value = f64.load(this.#sources.scalar(slot));
    switch (type) {
      case "f32":
        return f32x4.splat(f32.demote_f64(value));
      case "i32":
        return i32x4.splat(i32.trunc_sat_f64_s(value));
      case "u32":
        return i32x4.splat(i32.trunc_sat_f64_u(value));
      case "bool":
        return f32x4.ne(f32x4.splat(f32.demote_f64(value)), this.#math.k(0));
    }
  }

  /** The index along an axis; -1 is an axis of length 1. */
  #index(axis: number, u: number): Expr {
    const { plan, cursor } = this.#sources;
    if (axis < 0) return this.#math.ki(0);
    const base = i32x4.splat(cursor.index(axis));
    if (axis !== plan.vector || cursor.cover.lanes === 1) return base;
    const first = 4 * u;
    const lanes = v128.const32([first, first + 1, first + 2, first + 3]);
    return i32x4.add(base, this.#f.constant(`iota${first}`, lanes));
  }
}
