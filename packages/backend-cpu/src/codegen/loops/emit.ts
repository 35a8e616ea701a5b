/**
 * Emits the loops of a scheduled nest. Values are computed at the outermost loop they depend on, once; in row mode,
 * elements are recomputed from their loads in each pass over a row, except costly ones, which stay in scratch memory.
 */
import { BYTES, type Instr, type ReduceOp } from "@tiedlora/kernels";
import type { Expr, Fn, Int, Local } from "../assembler.ts";
import { f32, f32x4, f64, i32, i32x4, v128 } from "../instructions.ts";
import { VectorMath } from "../math.ts";
import { loadLanes, loadSplat, startOf, storeLanes, storeOne } from "./access.ts";
import type { Access, Nest, NestStore } from "./nest.ts";
import { closure, SCRATCH, typeOf } from "./nest.ts";
import type { Pass } from "./passes.ts";
import { dependences } from "./dependences.ts";
import { planPasses, scratchAccess } from "./passes.ts";
import type { Schedule } from "./schedule.ts";
import { binary, cast, constant, fold, horizontal, identity, unary } from "./values.ts";

/** Where the kernel's data is. */
export interface Environment {
  readonly fma: boolean;
  /** The address of a slot's buffer. */
  readonly base: (slot: number) => Expr;
  /** The address of the run-time scalar in `slot`, an f64. */
  readonly scalar: (slot: number) => Expr;
  /** This thread's scratch memory. */
  readonly scratch: Expr;
}

/** The part of the iteration space to run: indices of the outer axes, elements of the vector axis. */
export interface Range {
  readonly rows: readonly [from: Int, to: Int];
  readonly vector: readonly [from: Int, to: Int];
}

/** What of the vector axis the code being emitted covers. */
interface Block {
  readonly unroll: number;
  readonly lanes: 1 | 4;
  /** First index of its segment, which tells which operands are valid. */
  readonly segment: number;
}

const NO_BLOCK: Block = { unroll: 1, lanes: 4, segment: 0 };

export class LoopEmitter {
  private readonly f: Fn;
  private readonly math: VectorMath;
  private readonly nest: Nest;
  private readonly plan: Schedule;
  private readonly env: Environment;
  private readonly passes: readonly Pass[];
  /** By reduction: where its accumulators are, if they are in memory. */
  private readonly columnSums: ReadonlyMap<number, Access>;
  /** What the kernel needs of its thread's scratch memory. */
  readonly scratchBytes: number;
  /** Loop depth at which each instruction's value is available: 0 outside all loops to 3 in the innermost. */
  private readonly depth: readonly number[];
  /** Whether lanes of the instruction differ, so that each unrolled vector has a copy. */
  private readonly varies: readonly boolean[];
  private scopes: Map<number, readonly Expr[]>[] = [new Map()];
  private readonly pointers = new Map<Access, Local>();
  private readonly index = new Map<number, Local>();
  private block: Block = NO_BLOCK;

  constructor(f: Fn, nest: Nest, plan: Schedule, env: Environment) {
    this.f = f;
    this.math = new VectorMath(f, env.fma);
    this.nest = nest;
    this.plan = plan;
    this.env = env;
    const { depth, varies } = dependences(nest, plan);
    this.depth = depth;
    this.varies = varies;
    const planned = planPasses(nest, plan, (i) => depth[i] === 3 && varies[i] === true);
    this.passes = planned.passes;
    this.columnSums = plan.streams ? columnSums(nest, plan, planned.passes) : new Map<number, Access>();
    this.scratchBytes =
      planned.scratchBytes + this.columnSums.size * 4 * (plan.axes[plan.vector]?.length ?? 0);
  }

  emit(range: Range): void {
    const { f, nest, plan } = this;
    for (const access of this.accesses()) {
      const base = access.slot === SCRATCH ? this.env.scratch : this.env.base(access.slot);
      this.pointers.set(access, f.local("i32", startOf(access, access.dtype, base, this.env.scalar)));
    }
    const all = closure(nest.body, [
      ...this.passes.flatMap((p) => p.roots),
      ...this.rowStores().map((s) => s.value),
    ]);
    this.prepare(all, 0);
    this.walk(plan.outer, range.rows[0], range.rows[1], () => {
      if (plan.mode === "row") this.row();
      else if (plan.streams) this.stream(range.vector[0], range.vector[1]);
      else this.column(range.vector[0], range.vector[1]);
    });
  }

  private accesses(): Access[] {
    const cached = [...this.passes.flatMap((pass) => [...pass.save.values()]), ...this.columnSums.values()];
    return [...this.nest.loads.filter((a) => a !== null), ...this.nest.stores.map((s) => s.to), ...cached];
  }

  private rowStores(): NestStore[] {
    return this.nest.stores.filter((store) => store.row);
  }

  // --- the two modes

  private row(): void {
    const { f, plan } = this;
    const length = plan.axes[plan.vector]?.length ?? 1;
    for (const pass of this.passes) {
      this.prepare(pass.needed, 1);
      const sums = pass.reduces.map((r) => this.accumulators(r, plan.unroll));
      this.loopInner(() => {
        this.prepare(pass.needed, 2);
        this.vectorLoop(0, length, () => this.element(pass, sums));
      });
      pass.reduces.forEach((r, x) => {
        const { kind, type } = this.reduction(r);
        const [first, ...rest] = sums[x] ?? [];
        if (first === undefined) return;
        for (const other of rest) f.set(first, fold(f, kind, type, first, other));
        this.define(r, [f.bind(horizontal(f, kind, type, first))]);
      });
    }
    this.storeRows(1);
  }

  /** Column mode with the accumulators in memory: see `Schedule.streams`. */
  private stream(from: Int, to: Int): void {
    const { f, math } = this;
    const sums = [...this.columnSums];
    const needed = this.passes.flatMap((pass) => pass.needed);
    this.prepare(needed, 1);
    this.vectorLoop(from, to, () => {
      for (const [r, access] of sums) {
        const { kind, type } = this.reduction(r);
        this.storeValues(access, () => constant(math, identity(kind, type), type), type);
      }
    });
    this.loopInner(() => {
      this.prepare(
        needed.filter((i) => this.varies[i] !== true),
        3,
      );
      this.vectorLoop(from, to, () => {
        this.prepare(needed, 2);
        this.prepare(needed, 3);
        for (const [r, access] of sums) {
          const { kind, type, a } = this.reduction(r);
          this.storeValues(access, (u) => fold(f, kind, type, this.load(access, u), this.value(a, u)), type);
        }
      });
    });
    this.vectorLoop(from, to, () => {
      for (const [r, access] of sums) {
        const lanes = Array.from({ length: this.block.unroll }, (_, u) => f.bind(this.load(access, u)));
        this.define(r, lanes);
      }
      this.storeRows(2);
    });
  }

  private column(from: Int, to: Int): void {
    // nothing at depth 1 lies behind a reduction here: those are computed per vector
    for (const pass of this.passes) this.prepare(pass.needed, 1);
    this.vectorLoop(from, to, () => {
      for (const pass of this.passes) {
        this.prepare(pass.needed, 2);
        const sums = pass.reduces.map((r) => this.accumulators(r, this.block.unroll));
        this.loopInner(() => this.element(pass, sums));
        pass.reduces.forEach((r, x) => this.define(r, sums[x] ?? []));
      }
      this.storeRows(2);
    });
  }

  private loopInner(body: () => void): void {
    const { plan } = this;
    const count = plan.inner.reduce((n, a) => n * (plan.axes[a]?.length ?? 1), 1);
    this.walk(plan.inner, 0, count, body);
  }

  /** The innermost work of a pass: compute, accumulate, keep costly values, store. */
  private element(pass: Pass, sums: readonly (readonly Local[])[]): void {
    this.scoped(() => {
      this.prepare(pass.needed, 3, pass.restore);
      pass.reduces.forEach((r, x) => this.accumulate(r, sums[x] ?? []));
      for (const [i, to] of pass.save) this.store(to, i);
      for (const store of pass.stores) this.store(store.to, store.value);
    });
  }

  private storeRows(depth: number): void {
    const stores = this.rowStores();
    const needed = closure(
      this.nest.body,
      stores.map((s) => s.value),
      (i) => this.find(i) !== undefined,
    );
    for (let d = 1; d <= depth; d++) this.prepare(needed, d);
    for (const { to, value } of stores) this.store(to, value);
  }

  // --- reductions

  private reduction(r: number): { kind: ReduceOp; type: ReturnType<typeof typeOf>; a: number } {
    const instr = this.nest.body[r];
    if (instr?.op !== "reduce") throw new Error(`instruction ${r} is not a reduction`);
    return { kind: instr.kind, type: typeOf(this.nest.body, r), a: instr.a };
  }

  private accumulators(r: number, count: number): Local[] {
    const { kind, type } = this.reduction(r);
    const start = constant(this.math, identity(kind, type), type);
    return Array.from({ length: count }, () => this.f.local("v128", start));
  }

  private accumulate(r: number, sums: readonly Local[]): void {
    const { f, math } = this;
    const { kind, type, a } = this.reduction(r);
    const single = this.plan.mode === "row" && this.block.lanes === 1;
    for (let u = 0; u < this.block.unroll; u++) {
      const sum = sums[u];
      if (sum === undefined) throw new Error("accumulators do not match the unrolling");
      let value = this.value(a, u);
      if (single) {
        const laneZero = f.constant("lane0", v128.const32([0xffffffff, 0, 0, 0]));
        value = v128.bitselect(value, constant(math, identity(kind, type), type), laneZero);
      }
      f.set(sum, fold(f, kind, type, sum, value));
    }
  }

  // --- loops

  /** Runs `body` for the indices `from` to `to` of the flattened `axes`, pointers and index locals following. */
  private walk(axes: readonly number[], from: Int, to: Int, body: () => void): void {
    if (axes.length === 0 || (from === 0 && to === 1)) {
      for (const axis of axes) this.index.set(axis, this.f.local("i32", 0));
      this.scoped(body);
      return;
    }
    const moving = this.accesses().filter((access) => axes.some((a) => (access.strides[a] ?? 0) !== 0));
    const before = moving.map((access) => this.pointer(access));
    moving.forEach((access, i) => this.pointers.set(access, this.f.local("i32", before[i])));
    this.enterAt(axes, from, moving);
    const n = this.f.local("i32", i32.sub(to, from));
    this.f.doWhile(
      () => {
        this.scoped(body);
        this.advance(axes, axes.length - 1, moving);
        this.f.add(n, -1);
      },
      () => n,
    );
    moving.forEach((access, i) => this.pointers.set(access, before[i] as Local));
  }

  /** Sets index locals and pointers to the flat index `from`. */
  private enterAt(axes: readonly number[], from: Int, moving: readonly Access[]): void {
    const { f } = this;
    const rest = from === 0 ? null : f.local("i32", from);
    for (let j = axes.length - 1; j >= 0; j--) {
      const axis = axes[j] ?? 0;
      const length = this.plan.axes[axis]?.length ?? 1;
      const index = f.local("i32", 0);
      this.index.set(axis, index);
      if (rest === null) continue;
      f.set(index, j === 0 ? rest : i32.rem_u(rest, length));
      if (j > 0) f.set(rest, i32.div_u(rest, length));
      for (const access of moving) {
        const stride = bytesAlong(access, axis);
        if (stride !== 0) f.set(this.pointer(access), i32.add(this.pointer(access), i32.mul(index, stride)));
      }
    }
  }

  /** One step along axes[j], carrying into the axes before. */
  private advance(axes: readonly number[], j: number, moving: readonly Access[]): void {
    const { f } = this;
    const axis = axes[j] ?? 0;
    const index = this.indexOf(axis);
    for (const access of moving) f.add(this.pointer(access), bytesAlong(access, axis));
    f.add(index, 1);
    if (j === 0) return;
    const length = this.plan.axes[axis]?.length ?? 1;
    f.if(i32.eq(index, length), () => {
      f.set(index, 0);
      for (const access of moving) f.add(this.pointer(access), -length * bytesAlong(access, axis));
      this.advance(axes, j - 1, moving);
    });
  }

  /** Runs `body` over [from, to) of the vector axis: unrolled, then vector by vector, then element by element. */
  private vectorLoop(from: Int, to: Int, body: () => void): void {
    const { f, plan } = this;
    const axis = plan.vector;
    const moving = this.accesses().filter((access) => (access.strides[axis] ?? 0) !== 0);
    const before = moving.map((access) => this.pointer(access));
    moving.forEach((access, i) => {
      const start =
        typeof from === "number" ? from * bytesAlong(access, axis) : i32.mul(from, bytesAlong(access, axis));
      this.pointers.set(access, f.local("i32", i32.add(before[i] ?? 0, start)));
    });
    const v = f.local("i32", from);
    this.index.set(axis, v);
    for (let s = 0; s + 1 < plan.segments.length; s++) {
      const [start, end] = [plan.segments[s] ?? 0, plan.segments[s + 1] ?? 0];
      const limit =
        typeof to === "number" ? Math.min(to, end) : f.local("i32", i32.select(to, end, i32.lt_s(to, end)));
      // a static range knows how many elements are left in the segment
      let left =
        typeof from === "number" && typeof limit === "number"
          ? Math.max(0, limit - Math.max(from, start))
          : null;
      for (const [unroll, lanes] of plan.unroll > 1
        ? ([
            [plan.unroll, 4],
            [1, 4],
            [1, 1],
          ] as const)
        : ([
            [1, 4],
            [1, 1],
          ] as const)) {
        const width = unroll * lanes;
        if (left === null || left >= width) {
          this.block = { unroll, lanes, segment: start };
          this.repeat(v, limit, width, moving, body);
        }
        if (left !== null) left %= width;
      }
    }
    this.block = NO_BLOCK;
    moving.forEach((access, i) => this.pointers.set(access, before[i] as Local));
  }

  /** while (v + width <= limit) { body; v += width } */
  private repeat(v: Local, limit: Int, width: number, moving: readonly Access[], body: () => void): void {
    const { f, plan } = this;
    const last = typeof limit === "number" ? limit - width : f.local("i32", i32.sub(limit, width));
    f.while(
      () => i32.le_s(v, last),
      () => {
        this.scoped(body);
        for (const access of moving) f.add(this.pointer(access), width * bytesAlong(access, plan.vector));
        f.add(v, width);
      },
    );
  }

  // --- values

  private scoped(body: () => void): void {
    this.scopes.push(new Map());
    body();
    this.scopes.pop();
  }

  private define(i: number, lanes: readonly Expr[]): void {
    this.scopes.at(-1)?.set(i, lanes);
  }

  private find(i: number): readonly Expr[] | undefined {
    for (let s = this.scopes.length - 1; s >= 0; s--) {
      const hit = this.scopes[s]?.get(i);
      if (hit !== undefined) return hit;
    }
    return undefined;
  }

  private value(i: number, u: number): Expr {
    const lanes = this.find(i);
    const value = lanes?.[lanes.length === 1 ? 0 : u];
    if (value === undefined) throw new Error(`instruction ${i} is used before it is computed`);
    return value;
  }

  private pointer(access: Access): Local {
    const p = this.pointers.get(access);
    if (p === undefined) throw new Error("an operand has no pointer");
    return p;
  }

  private indexOf(axis: number): Local {
    const local = this.index.get(axis);
    if (local === undefined) throw new Error(`axis ${axis} has no index here`);
    return local;
  }

  /** Computes what of `needed` belongs at this loop depth and is not there yet; loads what an earlier pass `saved`. */
  private prepare(needed: readonly number[], depth: number, saved?: ReadonlyMap<number, Access>): void {
    for (const i of needed) {
      const instr = this.nest.body[i];
      if (instr === undefined || instr.op === "reduce" || this.depth[i] !== depth || this.find(i)) continue;
      const copies = this.varies[i] === true ? this.block.unroll : 1;
      const from = saved?.get(i);
      this.define(
        i,
        Array.from({ length: copies }, (_, u) => {
          const value = from === undefined ? this.compute(instr, i, u) : this.load(from, u);
          return instr.op === "const" ? value : this.f.bind(value);
        }),
      );
    }
  }

  private compute(instr: Instr, i: number, u: number): Expr {
    const { f, math, nest } = this;
    const type = typeOf(nest.body, i);
    switch (instr.op) {
      case "const":
        return constant(math, instr.value, type);
      case "scalar":
        return this.scalar(instr.slot, type);
      case "index":
        return this.indexValue(nest.indexAxis[i] ?? -1, u);
      case "load":
      case "product": {
        const access = nest.loads[i] ?? null;
        return access === null ? constant(math, 0, type) : this.load(access, u);
      }
      case "where":
        return v128.bitselect(this.value(instr.b, u), this.value(instr.c, u), this.value(instr.a, u));
      case "cast":
        return cast(math, this.value(instr.a, u), typeOf(nest.body, instr.a), instr.to);
      case "reduce":
        throw new Error("reductions are computed by their pass");
      default: {
        const a = this.value(instr.a, u);
        if (!("b" in instr)) return unary(f, math, instr.op, typeOf(nest.body, instr.a), a);
        const by = nest.body[instr.b];
        const number = by?.op === "const" ? by.value : null;
        return binary(f, math, instr.op, typeOf(nest.body, instr.a), a, this.value(instr.b, u), number);
      }
    }
  }

  private scalar(slot: number, type: ReturnType<typeof typeOf>): Expr {
    const value = f64.load(this.env.scalar(slot));
    switch (type) {
      case "f32":
        return f32x4.splat(f32.demote_f64(value));
      case "i32":
        return i32x4.splat(i32.trunc_sat_f64_s(value));
      case "u32":
        return i32x4.splat(i32.trunc_sat_f64_u(value));
      case "bool":
        return f32x4.ne(f32x4.splat(f32.demote_f64(value)), this.math.k(0));
    }
  }

  private indexValue(axis: number, u: number): Expr {
    if (axis < 0) return this.math.ki(0);
    const base = i32x4.splat(this.indexOf(axis));
    if (axis !== this.plan.vector || this.block.lanes === 1) return base;
    const first = 4 * u;
    const lanes = v128.const32([first, first + 1, first + 2, first + 3]);
    return i32x4.add(base, this.f.constant(`iota${first}`, lanes));
  }

  /** null: valid everywhere here. false: nowhere. Otherwise the run-time test. */
  private validity(access: Access): Expr | null | false {
    let test: Expr | null = null;
    for (const [axis, range] of access.valid.entries()) {
      if (range === null) continue;
      if (axis === this.plan.vector) {
        if (this.block.segment < range[0] || this.block.segment >= range[1]) return false;
        continue;
      }
      const within = i32.lt_u(i32.sub(this.indexOf(axis), range[0]), range[1] - range[0]);
      test = test === null ? within : i32.and(test, within);
    }
    return test;
  }

  private load(access: Access, u: number): Expr {
    const { f, math } = this;
    const valid = this.validity(access);
    const type = access.dtype === "f16" || access.dtype === "bf16" ? "f32" : access.dtype;
    if (type === "f64") throw new Error("the CPU backend has no f64 buffers; use f32");
    const zero = constant(math, 0, type);
    if (valid === false) return zero;
    const read = (): Expr => {
      const stride = access.strides[this.plan.vector] ?? 0;
      const p = this.pointer(access);
      if (stride === 0 || this.block.lanes === 1) return loadSplat(math, access.dtype, p, 0);
      return loadLanes(math, access.dtype, p, stride, 4 * u * stride * BYTES[access.dtype]);
    };
    if (valid === null) return read();
    const value = f.local("v128", zero);
    f.if(valid, () => f.set(value, read()));
    return value;
  }

  private store(access: Access, i: number): void {
    const valid = this.validity(access);
    if (valid === false) return;
    const type = typeOf(this.nest.body, i);
    const write = (): void => this.storeValues(access, (u) => this.value(i, u), type);
    if (valid === null) write();
    else this.f.if(valid, write);
  }

  private storeValues(access: Access, value: (u: number) => Expr, type: ReturnType<typeof typeOf>): void {
    const { f, math } = this;
    const p = this.pointer(access);
    if (this.block.lanes === 1 || this.block === NO_BLOCK)
      return storeOne(f, math, access.dtype, p, value(0), type);
    const stride = access.strides[this.plan.vector] ?? 0;
    for (let u = 0; u < this.block.unroll; u++) {
      const offset = 4 * u * stride * BYTES[access.dtype];
      storeLanes(f, math, access.dtype, p, stride, offset, value(u), type);
    }
  }
}

/** A vector of accumulators along the vector axis for each reduction. */
function columnSums(nest: Nest, plan: Schedule, passes: readonly Pass[]): Map<number, Access> {
  const lengths = plan.axes.map((axis, a) => (a === plan.vector ? axis.length : 1));
  const bytes = 4 * (plan.axes[plan.vector]?.length ?? 0);
  const reduces = passes.flatMap((pass) => pass.reduces);
  return new Map(reduces.map((r, x) => [r, scratchAccess(x * bytes, lengths, nest.body[r]?.dtype)]));
}

function bytesAlong(access: Access, axis: number): number {
  return (access.strides[axis] ?? 0) * BYTES[access.dtype];
}
