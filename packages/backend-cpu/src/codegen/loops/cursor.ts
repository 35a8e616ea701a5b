/**
 * The position of a nest's loops while their code is emitted: the address of every operand and the index of every axis, in
 * locals that advance with the loops. A cursor does not handle values.
 */
import { at } from "../../assert.ts";
import type { Fn, Int, Local } from "../assembler.ts";
import { i32 } from "../instructions.ts";
import { type Access, strideAlong } from "./nest.ts";
import type { LoopSizes } from "./numbers.ts";
import type { Schedule } from "./schedule.ts";

/** The part of the vector axis that the code being emitted covers. */
export interface Cover {
  /** Vectors, of `lanes` elements each. */
  readonly unroll: number;
  readonly lanes: 1 | 4;
  /** The first index of the segment, which determines which operands are valid. */
  readonly segment: number;
}

/** The cover of code outside the loops over the vector axis. */
const OUTSIDE: Cover = { unroll: 1, lanes: 4, segment: 0 };

export class Cursor {
  readonly #f: Fn;
  readonly #plan: Schedule;
  readonly #sizes: LoopSizes;
  readonly #pointers: Map<Access, Local>;
  readonly #indices = new Map<number, Local>();
  #cover: Cover = OUTSIDE;

  /** `starts`: every operand, with the address of its first element. */
  constructor(f: Fn, plan: Schedule, starts: ReadonlyMap<Access, Local>, sizes: LoopSizes) {
    this.#f = f;
    this.#sizes = sizes;
    this.#plan = plan;
    this.#pointers = new Map(starts);
  }

  get cover(): Cover {
    return this.#cover;
  }

  /** Whether the current code covers one element of the vector axis, or is outside the loops over that axis. */
  get isSingle(): boolean {
    return this.#cover.lanes === 1 || this.#cover === OUTSIDE;
  }

  /** The address of the operand's current element. */
  pointer(access: Access): Local {
    const p = this.#pointers.get(access);
    if (p === undefined)
      throw new Error("a bug in the CPU backend: an operand has no pointer; please report it");
    return p;
  }

  index(axis: number): Local {
    const local = this.#indices.get(axis);
    if (local === undefined) {
      throw new Error(`a bug in the CPU backend: axis ${axis} has no index here; please report it`);
    }
    return local;
  }

  /** Runs `body` for the indices `from` to `to` of the flattened `axes`. */
  walk(axes: readonly number[], from: Int, to: Int, body: () => void): void {
    const f = this.#f;
    if (axes.length === 0 || (from === 0 && to === 1)) {
      for (const axis of axes) this.#indices.set(axis, f.local("i32", 0));
      body();
      return;
    }
    this.#moving(
      axes,
      (_, before) => before,
      (moving) => {
        this.#enter(axes, from, moving);
        const n = f.local("i32", i32.sub(to, from));
        f.doWhile(
          () => {
            body();
            this.#advance(axes, axes.length - 1, moving);
            f.add(n, -1);
          },
          () => n,
        );
      },
    );
  }

  /** Runs `body` over [from, to) of the vector axis: unrolled, then vector by vector, then element by element. */
  walkVector(from: Int, to: Int, body: () => void): void {
    const f = this.#f;
    const { vector, segments } = this.#plan;
    const start = (access: Access, before: Local): Int => {
      if (from === 0) return i32.add(before, 0);
      return i32.add(before, i32.mul(from, this.#sizes.bytes(access, vector)));
    };
    this.#moving([vector], start, (moving) => {
      const v = f.local("i32", from);
      this.#indices.set(vector, v);
      for (let s = 0; s + 1 < segments.length; s++) {
        this.#walkSegment(s, v, [from, to], moving, body);
      }
      this.#cover = OUTSIDE;
    });
  }

  /** Runs `body` with separate pointers for the operands that move along `axes`; each begins at its `start`. */
  #moving(
    axes: readonly number[],
    start: (access: Access, before: Local) => Int,
    body: (moving: readonly Access[]) => void,
  ): void {
    const before = [...this.#pointers].filter(([access]) => axes.some((a) => strideAlong(access, a) !== 0));
    for (const [access, p] of before) this.#pointers.set(access, this.#f.local("i32", start(access, p)));
    body(before.map(([access]) => access));
    for (const [access, p] of before) this.#pointers.set(access, p);
  }

  /** Sets indices and pointers to the flat index `from` of `axes`. */
  #enter(axes: readonly number[], from: Int, moving: readonly Access[]): void {
    const f = this.#f;
    const rest = from === 0 ? null : f.local("i32", from);
    for (let j = axes.length - 1; j >= 0; j--) {
      const axis = at(axes, j, "axis");
      const length = this.#sizes.length(axis);
      const index = f.local("i32", 0);
      this.#indices.set(axis, index);
      if (rest === null) continue;
      f.set(index, j === 0 ? rest : i32.rem_u(rest, length));
      if (j > 0) f.set(rest, i32.div_u(rest, length));
      for (const access of moving) {
        const stride = this.#sizes.bytes(access, axis);
        if (stride !== 0) f.set(this.pointer(access), i32.add(this.pointer(access), i32.mul(index, stride)));
      }
    }
  }

  /** Takes one step along axes[j], with carries into the axes before it. */
  #advance(axes: readonly number[], j: number, moving: readonly Access[]): void {
    const f = this.#f;
    const axis = at(axes, j, "axis");
    const index = this.index(axis);
    for (const access of moving) f.add(this.pointer(access), this.#sizes.bytes(access, axis));
    f.add(index, 1);
    if (j === 0) return;
    f.if(i32.eq(index, this.#sizes.length(axis)), () => {
      f.set(index, 0);
      for (const access of moving) f.add(this.pointer(access), this.#sizes.carry(access, axis));
      this.#advance(axes, j - 1, moving);
    });
  }

  /** Emits the part of a walk along the vector axis that lies in one segment; `v` is the index. */
  #walkSegment(
    s: number,
    v: Local,
    [from, to]: readonly [Int, Int],
    moving: readonly Access[],
    body: () => void,
  ): void {
    const start = at(this.#plan.segments, s, "segment");
    const end = this.#sizes.segment(s + 1);
    const limit =
      typeof to === "number" && typeof end === "number"
        ? Math.min(to, end)
        : this.#f.local("i32", i32.select(to, end, i32.lt_s(to, end)));
    // if the range is static, the number of elements left in the segment is known
    let left =
      typeof from === "number" && typeof limit === "number"
        ? Math.max(0, limit - Math.max(from, start))
        : null;
    for (const [unroll, lanes] of coversOf(this.#plan.unroll)) {
      if (unroll > this.#sizes.mostVectors) continue;
      const width = unroll * lanes;
      if (left === null || left >= width) {
        this.#cover = { unroll, lanes, segment: start };
        this.#repeat(v, limit, width, moving, body);
      }
      if (left !== null) left %= width;
    }
  }

  /** while (v + width <= limit) { body; v += width } */
  #repeat(v: Local, limit: Int, width: number, moving: readonly Access[], body: () => void): void {
    const f = this.#f;
    const last = typeof limit === "number" ? limit - width : f.local("i32", i32.sub(limit, width));
    f.while(
      () => i32.le_s(v, last),
      () => {
        body();
        for (const access of moving)
          f.add(this.pointer(access), this.#sizes.bytes(access, this.#plan.vector, width));
        f.add(v, width);
      },
    );
  }
}

/** The loops that walk a segment, one after the other: how many vectors, and how many lanes, each takes at a time. */
function coversOf(unroll: number): (readonly [unroll: number, lanes: 1 | 4])[] {
  const last = [[1, 4] as const, [1, 1] as const];
  return unroll > 1 ? [[unroll, 4], ...last] : last;
}
