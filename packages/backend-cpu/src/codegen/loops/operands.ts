/**
 * Loads and stores of a nest's operands at the current position of the loops: as many elements as the cursor covers, padding
 * left out.
 */
import { BYTES } from "@tiedlora/kernels";
import type { Expr, Fn } from "../assembler.ts";
import { i32 } from "../instructions.ts";
import type { VectorMath } from "../math.ts";
import type { Cursor } from "./cursor.ts";
import { type Lanes, loadLanes, loadSplat, storeLanes, storeOne } from "./load-store.ts";
import { type Access, strideAlong } from "./nest.ts";
import type { LoopSizes } from "./numbers.ts";
import type { Schedule } from "./schedule.ts";
import { constant, type LaneType } from "./values.ts";

export class Operands {
  readonly #f: Fn;
  readonly #math: VectorMath;
  readonly #plan: Schedule;
  readonly #cursor: Cursor;
  readonly #sizes: LoopSizes;

  constructor(f: Fn, math: VectorMath, plan: Schedule, cursor: Cursor, sizes: LoopSizes) {
    this.#f = f;
    this.#sizes = sizes;
    this.#math = math;
    this.#plan = plan;
    this.#cursor = cursor;
  }

  /** Loads vector `u` of those that the cursor covers; zeros where the operand is padding. */
  load(access: Access, u: number): Expr {
    const [f, math] = [this.#f, this.#math];
    const valid = this.#validity(access);
    const type = access.dtype === "f16" || access.dtype === "bf16" ? "f32" : access.dtype;
    if (type === "f64") throw new Error("the CPU backend has no f64 buffers; use f32");
    const zero = constant(math, 0, type);
    if (valid === false) return zero;
    const read = (): Expr => {
      const stride = strideAlong(access, this.#plan.vector);
      const p = this.#cursor.pointer(access);
      if (stride === 0 || this.#cursor.cover.lanes === 1) return loadSplat(math, access.dtype, p, 0);
      return loadLanes(math, access.dtype, p, this.#lanes(access, u), 4 * u * stride * BYTES[access.dtype]);
    };
    if (valid === null) return read();
    const value = f.local("v128", zero);
    f.if(valid, () => f.set(value, read()));
    return value;
  }

  /** Stores all vectors that the cursor covers, `value(u)` of type `type` each, except where the operand is padding. */
  store(access: Access, type: LaneType, value: (u: number) => Expr): void {
    const valid = this.#validity(access);
    if (valid === false) return;
    const write = (): void => this.#write(access, type, value);
    if (valid === null) write();
    else this.#f.if(valid, write);
  }

  #write(access: Access, type: LaneType, value: (u: number) => Expr): void {
    const [f, math] = [this.#f, this.#math];
    const p = this.#cursor.pointer(access);
    if (this.#cursor.isSingle) return storeOne(f, math, access.dtype, p, value(0), type);
    const stride = strideAlong(access, this.#plan.vector);
    for (let u = 0; u < this.#cursor.cover.unroll; u++) {
      const offset = 4 * u * stride * BYTES[access.dtype];
      storeLanes(f, math, access.dtype, p, this.#lanes(access, u), offset, value(u), type);
    }
  }

  /** Where the lanes of vector `u` are. */
  #lanes(access: Access, u: number): Lanes {
    const { vector } = this.#plan;
    const stride = strideAlong(access, vector);
    if (typeof this.#sizes.bytes(access, vector) === "number") return stride;
    const p = this.#cursor.pointer(access);
    return (lane) => (4 * u + lane === 0 ? p : i32.add(p, this.#sizes.bytes(access, vector, 4 * u + lane)));
  }

  /** Whether the operand is valid at the current position: null if always, false if never, otherwise a test at run time. */
  #validity(access: Access): Expr | null | false {
    const { segment } = this.#cursor.cover;
    let test: Expr | null = null;
    for (const [axis, range] of access.valid.entries()) {
      if (range === null) continue;
      if (axis === this.#plan.vector) {
        if (segment < range[0] || segment >= range[1]) return false;
        continue;
      }
      const [from, count] = this.#sizes.valid(access, axis);
      const within = i32.lt_u(i32.sub(this.#cursor.index(axis), from), count);
      test = test === null ? within : i32.and(test, within);
    }
    return test;
  }
}
