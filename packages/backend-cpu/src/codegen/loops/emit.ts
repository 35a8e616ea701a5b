/**
 * Emits the loops of a scheduled nest. In row mode, elements are recomputed from their loads in each pass over a row, except costly ones,
 * which stay in scratch memory.
 */
import type { ReduceOp } from "@tiedlora/kernels";
import { at } from "../../assert.ts";
import type { Expr, Fn, Int, Local } from "../assembler.ts";
import { v128 } from "../instructions.ts";
import { VectorMath } from "../math.ts";
import { Cursor } from "./cursor.ts";
import { dependencesOf } from "./dependences.ts";
import { Evaluator } from "./evaluate.ts";
import { type Access, closure, type Nest, type NestStore, SCRATCH, typeOf } from "./nest.ts";
import { accessesOf, accumulatorsOf, type Loops, type LoopSizes } from "./numbers.ts";
import { Operands } from "./operands.ts";
import { type Pass, planPasses, scratchAccess, scratchLayout } from "./passes.ts";
import type { Schedule } from "./schedule.ts";
import { constant, fold, horizontal, identity, type LaneType } from "./values.ts";

/** Where the kernel's data is. */
export interface Environment {
  readonly fma: boolean;
  /** The address of an argument's buffer. */
  readonly base: (argument: number) => Expr;
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

/** How the loops of a nest are run. */
export function planLoops(nest: Nest, plan: Schedule): Loops {
  const dependences = dependencesOf(nest, plan);
  const perElement = (i: number): boolean => dependences.depth[i] === 3 && dependences.varies[i] === true;
  const { passes, scratchBytes } = planPasses(nest, plan, perElement);
  const columnSums = plan.streams ? columnSumsOf(nest, plan, passes) : new Map<number, Access>();
  return {
    nest,
    plan,
    dependences,
    passes,
    columnSums,
    scratchBytes: scratchBytes + columnSums.size * scratchLayout(plan).bytes,
    ...accumulatorsOf(plan),
  };
}

/** Emits the loops into `f`. */
export function emitLoops(
  f: Fn,
  loops: Loops,
  sizes: LoopSizes,
  environment: Environment,
  range: Range,
): void {
  new LoopEmitter(f, loops, sizes, environment).emit(range);
}

class LoopEmitter {
  readonly #f: Fn;
  readonly #math: VectorMath;
  readonly #loops: Loops;
  readonly #sizes: LoopSizes;
  readonly #cursor: Cursor;
  readonly #operands: Operands;
  readonly #values: Evaluator;

  constructor(f: Fn, loops: Loops, sizes: LoopSizes, environment: Environment) {
    const { nest, plan, dependences } = loops;
    const { scalar } = environment;
    this.#f = f;
    this.#math = new VectorMath(f, environment.fma);
    this.#loops = loops;
    this.#sizes = sizes;
    this.#cursor = new Cursor(f, plan, startsOf(f, loops, sizes, environment), sizes);
    this.#operands = new Operands(f, this.#math, plan, this.#cursor, sizes);
    const [cursor, operands] = [this.#cursor, this.#operands];
    this.#values = new Evaluator(f, this.#math, { nest, plan, dependences, cursor, operands, sizes, scalar });
  }

  emit({ rows, vector }: Range): void {
    const { nest, plan, passes } = this.#loops;
    const roots = [...passes.flatMap((p) => p.roots), ...this.#rowStores().map((s) => s.value)];
    this.#values.prepare(closure(nest.body, roots), 0);
    this.#walk(plan.outer, ...rows, () => {
      if (plan.mode === "row") this.#row();
      else if (plan.streams) this.#stream(...vector);
      else this.#column(...vector);
    });
  }

  // --- loops, each with its own scope

  #walk(axes: readonly number[], from: Int, to: Int, body: () => void): void {
    this.#cursor.walk(axes, from, to, () => this.#values.scoped(body));
  }

  #walkInner(body: () => void): void {
    this.#walk(this.#loops.plan.inner, 0, this.#sizes.innerCount(), body);
  }

  #walkVector(from: Int, to: Int, body: () => void): void {
    this.#cursor.walkVector(from, to, () => this.#values.scoped(body));
  }

  // --- the modes

  #row(): void {
    const { plan, passes, accumulators, rotation } = this.#loops;
    const length = this.#sizes.length(plan.vector);
    for (const pass of passes) {
      this.#values.prepare(pass.needed, 1);
      const sums = this.#accumulators(pass, accumulators);
      this.#walkInner(() => {
        this.#values.prepare(pass.needed, 2);
        this.#walkVector(0, length, () => this.#element(pass, sums));
      });
      for (const [r, vectors] of sums) this.#values.define(r, [this.#folded(r, rotated(vectors, -rotation))]);
    }
    this.#storeRows(1);
  }

  #column(from: Int, to: Int): void {
    const { passes } = this.#loops;
    // in this mode, no value at depth 1 depends on a reduction, because reductions are computed per vector
    for (const pass of passes) this.#values.prepare(pass.needed, 1);
    this.#walkVector(from, to, () => {
      for (const pass of passes) {
        this.#values.prepare(pass.needed, 2);
        const sums = this.#accumulators(pass, this.#cursor.cover.unroll);
        this.#walkInner(() => this.#element(pass, sums));
        for (const [r, vectors] of sums) this.#values.define(r, vectors);
      }
      this.#storeRows(2);
    });
  }

  /** Column mode with the accumulators in memory: see `Schedule.streams`. */
  #stream(from: Int, to: Int): void {
    const { passes, columnSums, dependences } = this.#loops;
    const needed = passes.flatMap((pass) => pass.needed);
    this.#values.prepare(needed, 1);
    this.#walkVector(from, to, () => {
      for (const [r, sum] of columnSums) this.#operands.store(sum, this.#typeOf(r), () => this.#identity(r));
    });
    this.#walkInner(() => {
      this.#values.prepare(
        needed.filter((i) => dependences.varies[i] !== true),
        3,
      );
      this.#walkVector(from, to, () => {
        this.#values.prepare(needed, 2);
        this.#values.prepare(needed, 3);
        for (const [r, sum] of columnSums) {
          const { a } = this.#reduction(r);
          const added = (u: number): Expr =>
            this.#fold(r, this.#operands.load(sum, u), this.#values.value(a, u));
          this.#operands.store(sum, this.#typeOf(r), added);
        }
      });
    });
    this.#walkVector(from, to, () => {
      const copies = { length: this.#cursor.cover.unroll };
      for (const [r, sum] of columnSums) {
        this.#values.define(
          r,
          Array.from(copies, (_, u) => this.#f.bind(this.#operands.load(sum, u))),
        );
      }
      this.#storeRows(2);
    });
  }

  /** Emits the innermost code of a pass: computes values, accumulates them, saves costly ones, and stores results. */
  #element(pass: Pass, sums: ReadonlyMap<number, readonly Local[]>): void {
    this.#values.scoped(() => {
      this.#values.prepare(pass.needed, 3, pass.restore);
      for (const [r, vectors] of sums) this.#accumulate(r, vectors);
      for (const [i, to] of pass.save) this.#store(to, i);
      for (const { to, value } of pass.stores) this.#store(to, value);
    });
  }

  // --- stores

  #store(to: Access, i: number): void {
    this.#operands.store(to, this.#typeOf(i), (u) => this.#values.value(i, u));
  }

  #rowStores(): NestStore[] {
    return this.#loops.nest.stores.filter((store) => store.row);
  }

  #storeRows(depth: number): void {
    const stores = this.#rowStores();
    const needed = closure(
      this.#loops.nest.body,
      stores.map((s) => s.value),
      (i) => this.#values.isKnown(i),
    );
    for (let d = 1; d <= depth; d++) this.#values.prepare(needed, d);
    for (const { to, value } of stores) this.#store(to, value);
  }

  // --- reductions

  #typeOf(i: number): LaneType {
    return typeOf(this.#loops.nest.body, i);
  }

  #reduction(r: number): { readonly kind: ReduceOp; readonly a: number } {
    const instr = at(this.#loops.nest.body, r, "instruction");
    if (instr.op !== "reduce") {
      throw new Error(`a bug in the CPU backend: instruction ${r} is no reduction; please report it`);
    }
    return instr;
  }

  #identity(r: number): Expr {
    const type = this.#typeOf(r);
    return constant(this.#math, identity(this.#reduction(r).kind, type), type);
  }

  #fold(r: number, a: Expr, b: Expr): Expr {
    return fold(this.#f, this.#reduction(r).kind, this.#typeOf(r), a, b);
  }

  /** `count` vectors of accumulators for each reduction of a pass, set to the identity of its operation. */
  #accumulators({ reduces }: Pass, count: number): Map<number, readonly Local[]> {
    const start = (r: number): Local[] => {
      const zero = this.#identity(r);
      return Array.from({ length: count }, () => this.#f.local("v128", zero));
    };
    return new Map(reduces.map((r) => [r, start(r)]));
  }

  /** Folds the values of a pass into the accumulators, of which the first is always the next one's turn. */
  #accumulate(r: number, sums: readonly Local[]): void {
    const f = this.#f;
    const { a } = this.#reduction(r);
    const { unroll, lanes } = this.#cursor.cover;
    const isSingle = this.#loops.plan.mode === "row" && lanes === 1;
    for (let u = 0; u < unroll; u++) {
      let value = this.#values.value(a, u);
      if (isSingle) {
        const laneZero = f.constant("lane0", v128.const32([0xffffffff, 0, 0, 0]));
        value = v128.bitselect(value, this.#identity(r), laneZero);
      }
      const sum = at(sums, u, "accumulator");
      f.set(sum, this.#fold(r, sum, value));
    }
    if (lanes === 4) this.#rotate(sums, unroll);
  }

  /** Moves the contents of each accumulator `count` places forward, those of the first to the end. */
  #rotate(sums: readonly Local[], count: number): void {
    if (count % sums.length === 0) return;
    const f = this.#f;
    const first = sums.slice(0, count).map((sum) => f.local("v128", sum));
    const moved = [...sums.slice(count), ...first];
    for (const [i, sum] of sums.entries()) f.set(sum, at(moved, i, "accumulator"));
  }

  /** All lanes of all accumulators, folded into one number that every lane holds. */
  #folded(r: number, [first, ...rest]: readonly Local[]): Expr {
    if (first === undefined) {
      throw new Error("a bug in the CPU backend: a reduction has no accumulator; please report it");
    }
    for (const other of rest) this.#f.set(first, this.#fold(r, first, other));
    return this.#f.bind(horizontal(this.#f, this.#reduction(r).kind, this.#typeOf(r), first));
  }
}

/** The operands in memory, with the addresses of their first elements. */
function startsOf(f: Fn, loops: Loops, sizes: LoopSizes, environment: Environment): Map<Access, Local> {
  const { base, scalar, scratch } = environment;
  const start = ({ argument }: Access): Expr => (argument === SCRATCH ? scratch : base(argument));
  return new Map(
    accessesOf(loops).map((access) => [access, f.local("i32", sizes.start(access, start(access), scalar))]),
  );
}

/** The elements from number `count`, modulo their number, on; then those before it. */
function rotated<T>(elements: readonly T[], count: number): T[] {
  const n = elements.length;
  const first = ((count % n) + n) % n;
  return [...elements.slice(first), ...elements.slice(0, first)];
}

/** Scratch memory for each reduction: one accumulator per index of the vector axis. */
function columnSumsOf(nest: Nest, plan: Schedule, passes: readonly Pass[]): Map<number, Access> {
  const { bytes, lengths } = scratchLayout(plan);
  const reduces = passes.flatMap((pass) => pass.reduces);
  return new Map(
    reduces.map((r, x) => [r, scratchAccess(x * bytes, lengths, at(nest.body, r, "instruction").dtype)]),
  );
}
