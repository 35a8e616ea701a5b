/**
 * Loop kernels as WGSL. A workgroup is X × Y invocations: X neighboring outer indices, each folded by Y invocations
 * that share the inner elements. Elementwise kernels and short rows have Y = 1, long rows X = 1, and columns (where
 * neighboring outer indices are neighbors in memory) use both. Memory is accessed four elements at a time where the
 * views allow it.
 */
import { type ComputeType, type LoopKernel, product } from "@tiedlora/kernels";
import { allOf, BINARY, literal, REDUCE, type Typed, type Width, wgslType } from "./arithmetic.ts";
import { Bindings } from "./bindings.ts";
import { modeOf, type Use } from "./shown.ts";
import { BodyWriter, usesOf } from "./body.ts";
import { Helpers } from "./helpers.ts";
import { axisToSplit, coalesce, narrow, operandsOfSpace, type Space, spaceOf, wantsSplit } from "./space.ts";
import { ceilDiv, grid, type Kernel, range, type Target } from "./target.ts";

/** The dispatches of a loop kernel: one, or several where its buffers exceed what a binding can show. */
export function renderLoop(kernel: LoopKernel, bufferBytes: readonly number[], target: Target): Kernel[] {
  return split(spaceOf(kernel), bufferBytes, target).map((s) =>
    renderSpace(coalesce(s), bufferBytes, target),
  );
}

/**
 * Halves the outer axes until every operand of an oversize buffer fits one binding. An operand with a single row that exceeds
 * a binding is left to `Bindings`, which shows it by several bindings.
 */
function split(space: Space, bufferBytes: readonly number[], target: Target): Space[] {
  const lengths = [...space.outer, ...space.inner];
  const rank = space.outer.length;
  const oversize = operandsOfSpace(space).filter((o) =>
    wantsSplit(o, lengths, rank, bufferBytes[o.buffer]!, target),
  );
  if (oversize.length === 0) return [space];
  const axis = axisToSplit(oversize, lengths, range(rank));
  if (axis === undefined) return [space];
  const length = lengths[axis]!;
  const half = length >= 8 ? ceilDiv(length, 8) * 4 : ceilDiv(length, 2);
  return [narrow(space, axis, 0, half), narrow(space, axis, half, length - half)].flatMap((s) =>
    split(s, bufferBytes, target),
  );
}

/** The axis to walk four elements at a time: the last outer or inner one, if that suits the operands. */
function chooseVectorAxis(space: Space): number | undefined {
  const lengths = [...space.outer, ...space.inner];
  const candidates = [lengths.length - 1, space.outer.length - 1].filter(
    (d) => d >= 0 && lengths[d]! % 4 === 0,
  );
  return candidates.find((vectorAxis) => {
    const modes = usesOf({ ...space, lengths, vectorAxis }).map((u) => modeOf(u));
    const wide = modes.filter((m) => m === "vector").length;
    return wide > 0 && modes.filter((m) => m === "gather").length <= wide;
  });
}

/** Shape of a workgroup, and what it iterates over. */
interface Plan {
  readonly vectorAxis: number | undefined;
  /** Outer and inner iterations, each of four elements along the vector axis. */
  readonly rows: number;
  readonly columns: number;
  readonly x: number;
  readonly y: number;
  /** Whether the Y invocations are one subgroup, which folds without workgroup memory. */
  readonly subgroup: boolean;
}

const powerOfTwo = (at: number, low: number, high: number): number =>
  Math.min(high, Math.max(low, 2 ** Math.floor(Math.log2(Math.max(1, at)))));

function plan(space: Space, target: Target): Plan {
  const { outer, inner, body } = space;
  const vectorAxis = chooseVectorAxis(space);
  const isInner = vectorAxis !== undefined && vectorAxis >= outer.length;
  const rows = product(outer) / (vectorAxis !== undefined && !isInner ? 4 : 1);
  const columns = product(inner) / (isInner ? 4 : 1);
  const base = { vectorAxis, rows, columns };
  const alone = { ...base, x: 64, y: 1, subgroup: false };
  if (columns <= 4 || inner.length === 0) return alone;
  if (areColumns(space, vectorAxis)) {
    const x = target.software ? 8 : 32;
    // enough columns keep every core busy without sharing one among several invocations
    const wanted = ceilDiv(target.software ? 64 : 32768, rows);
    return {
      ...base,
      x,
      y: powerOfTwo(Math.min(wanted, columns / 4), 1, Math.floor(128 / x)),
      subgroup: false,
    };
  }
  const bools = body.some((i) => i.op === "reduce" && i.dtype === "bool");
  if (target.subgroup > 0 && (target.software || columns <= 2 * target.subgroup) && !bools) {
    return columns >= target.subgroup ? { ...base, x: 1, y: target.subgroup, subgroup: true } : alone;
  }
  const y = powerOfTwo(columns / (target.software ? 8 : 2), 8, Math.min(256, target.maxInvocations));
  return { ...base, x: y >= 64 || target.software ? 1 : 64 / y, y, subgroup: false };
}

/** Whether neighbors along the last outer axis, rather than along the last inner one, are neighbors in memory. */
function areColumns(space: Space, vectorAxis: number | undefined): boolean {
  const last = space.outer.length - 1;
  if (vectorAxis !== undefined) return vectorAxis === last;
  let votes = 0;
  for (const instr of space.body) {
    if (instr.op !== "load") continue;
    const { strides } = instr.from.view;
    if (areNeighbors(strides[last])) votes++;
    if (areNeighbors(strides.at(-1))) votes--;
  }
  return votes > 0;
}

/** Whether elements that are `stride` apart are next to one another in memory. */
function areNeighbors(stride: number | undefined): boolean {
  return stride === 1 || stride === -1;
}

function renderSpace(space: Space, bufferBytes: readonly number[], target: Target): Kernel {
  const writer = new LoopWriter(space, bufferBytes, target);
  return writer.render();
}

/** Writes one loop kernel. */
class LoopWriter {
  readonly #space: Space;
  readonly #plan: Plan;
  readonly #target: Target;
  readonly #bindings: Bindings;
  readonly #body: BodyWriter;
  readonly #lines: string[] = [];
  readonly #shared = new Map<string, string>();

  constructor(space: Space, bufferBytes: readonly number[], target: Target) {
    this.#space = space;
    this.#target = target;
    this.#plan = plan(space, target);
    const { vectorAxis } = this.#plan;
    const lengths = [...space.outer, ...space.inner];
    const uses: Use[] = usesOf({ ...space, lengths, vectorAxis });
    this.#bindings = new Bindings(uses, bufferBytes, target, new Helpers());
    this.#body = new BodyWriter(
      {
        ...space,
        lengths,
        outerRank: space.outer.length,
        vectorAxis,
        indices: lengths.map((_, d) => `i${d}`),
      },
      this.#bindings,
    );
  }

  render(): Kernel {
    const { x, y, rows, subgroup } = this.#plan;
    const groups = grid(ceilDiv(rows, x), this.#target);
    this.#main(groups);
    const { body } = this.#space;
    const main = this.#bindings.entry(this.#lines);
    const code = [
      ...(subgroup ? ["enable subgroups;"] : []),
      this.#bindings.declare(),
      ...[...this.#shared].map(([name, type]) => `var<workgroup> ${name}: array<${type}, ${x * y}>;`),
      this.#bindings.helpers.definitions(),
      this.#bindings.elements.functions(),
      `@compute @workgroup_size(${x * y})`,
      "fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {",
      ...main.map((line) => `  ${line}`),
      "}",
    ].filter((line) => line !== "");
    const folds = body.filter((i) => i.op === "reduce").length;
    return {
      label: `${folds === 0 ? "elementwise" : y > 1 && x > 1 ? "columns" : "rows"} [${this.#space.outer.join(",")}${folds === 0 ? "" : `|${this.#space.inner.join(",")}`}] ${body.length} instructions`,
      code: code.join("\n"),
      ...this.#bindings.describe(),
      groups,
    };
  }

  #main(groups: readonly [number, number, number]): void {
    const { x, y, vectorAxis } = this.#plan;
    const { outer, stores, body } = this.#space;
    const { sizes } = this.#bindings;
    const emit = (line: string): void => void this.#lines.push(line);
    const flat = groups[1] === 1;
    const linear = flat ? "group.x" : `(group.x + group.y * ${sizes.of("groups", groups[0])})`;
    const full = x === 1 && flat;
    const rows = full ? "" : sizes.of("rows", this.#plan.rows);
    emit(
      x === 1 ? `let row0 = ${linear};` : `let row0 = ${linear} * ${x}u + lane${y > 1 ? ` % ${x}u` : ""};`,
    );
    // With Y > 1 all invocations stay for the barriers, and surplus ones repeat the last row.
    if (y > 1) emit(full ? "let row = row0;" : `let row = min(row0, ${rows} - 1u);`);
    else {
      emit("let row = row0;");
      if (!full) emit(`if (row >= ${rows}) { return; }`);
    }
    if (y > 1) emit(`let part = lane / ${x}u;`);
    this.#indices("row", outer, 0, vectorAxis).forEach(emit);

    const rowStores = stores.filter((s) => s.to.view.strides.length === outer.length);
    const elementStores = stores.filter((s) => s.to.view.strides.length !== outer.length);
    const live = new Set(
      this.#body.needed(
        stores.map((s) => s.value),
        () => true,
      ),
    );
    this.#body.hoist().forEach(emit);
    body.forEach((instr, i) => {
      if (!live.has(i) || this.#body.inner[i]) return;
      if (instr.op === "reduce") this.#reduce(i, instr.a, instr.kind);
      else emit(this.#body.compute(i));
    });
    const own = allOf([...(y > 1 ? ["part == 0u"] : []), ...(y > 1 && !full ? [`row0 < ${rows}`] : [])]);
    for (const store of rowStores) {
      const text = this.#body.store(store);
      emit(own === undefined ? text : `if (${own}) { ${text} }`);
    }
    if (elementStores.length > 0) {
      const guard = y > 1 && !full ? `if (row0 < ${rows}) ` : "";
      this.#loop(
        elementStores.map((s) => s.value),
        guard,
        () => elementStores.map((s) => this.#body.store(s)),
      );
    }
  }

  /** A loop of this invocation over its share of the inner elements. */
  #loop(roots: readonly number[], guard: string, end: () => string[]): void {
    const { outer, inner } = this.#space;
    const { y, columns, vectorAxis } = this.#plan;
    const emit = (line: string): void => void this.#lines.push(line);
    const bound = this.#bindings.sizes.steps("columns", columns);
    emit(
      `${guard === "" ? "" : `${guard}{ `}for (var c = ${y > 1 ? "part" : "0u"}; c < ${bound}; c += ${y}u) {`,
    );
    this.#indices("c", inner, outer.length, vectorAxis).forEach((line) => emit(`  ${line}`));
    for (const i of this.#body.needed(roots, (n) => this.#body.inner[n]!)) emit(`  ${this.#body.compute(i)}`);
    end().forEach((line) => emit(`  ${line}`));
    emit(guard === "" ? "}" : "} }");
  }

  /** `let` statements for the indices along axes that start at `first`, from the linear index `from`. */
  #indices(
    from: string,
    lengths: readonly number[],
    first: number,
    vectorAxis: number | undefined,
  ): string[] {
    const steps = lengths.map((n, d) => (first + d === vectorAxis ? n / 4 : n));
    const name = (d: number): string => (first + d === vectorAxis ? "four" : `i${first + d}`);
    const wide = steps.some((_, d) => first + d === vectorAxis) ? [`let i${vectorAxis} = four * 4u;`] : [];
    return [...this.#bindings.sizes.split(from, steps, name, (d) => `length${first + d}`), ...wide];
  }

  #reduce(i: number, a: number, kind: keyof typeof REDUCE): void {
    const { outer } = this.#space;
    const { vectorAxis } = this.#plan;
    const type = this.#space.body[i]!.dtype;
    const { fold, start } = REDUCE[kind];
    const innerVector = vectorAxis !== undefined && vectorAxis >= outer.length;
    const width: Width = innerVector || this.#body.wide[a] ? 4 : 1;
    const T = wgslType(type, width);
    const typed = (w: Width): Typed => ({
      type,
      width: w,
      call: (h, ...args) => this.#bindings.helpers.call(h, w, args),
    });
    const combine = (p: string, q: string, w: Width): string => BINARY[fold](p, q, typed(w));
    const emit = (line: string): void => void this.#lines.push(line);
    emit(`var acc${i} = ${T}(${literal(start(type), type)});`);
    this.#loop([a], "", () => [`acc${i} = ${combine(`acc${i}`, this.#body.value(a, width), width)};`]);
    let result = `acc${i}`;
    if (innerVector) {
      emit(`let low${i} = ${combine(`${result}.x`, `${result}.y`, 1)};`);
      emit(`let high${i} = ${combine(`${result}.z`, `${result}.w`, 1)};`);
      emit(`let sum${i} = ${combine(`low${i}`, `high${i}`, 1)};`);
      result = `sum${i}`;
    }
    this.#combineLanes(i, result, type, kind, innerVector ? 1 : width, combine);
  }

  /** Folds the values of the Y invocations of a row; every one of them gets the result as `v{i}`. */
  #combineLanes(
    i: number,
    value: string,
    type: ComputeType,
    kind: keyof typeof REDUCE,
    width: Width,
    combine: (p: string, q: string, w: Width) => string,
  ): void {
    const { x, y, subgroup } = this.#plan;
    const emit = (line: string): void => void this.#lines.push(line);
    if (y === 1) return emit(`let v${i} = ${value};`);
    if (subgroup) {
      const folded = `${REDUCE[kind].subgroup}(${value})`;
      if (type !== "f32" || (kind !== "max" && kind !== "min")) return emit(`let v${i} = ${folded};`);
      const nan = this.#bindings.helpers.call("isNaN", 1, [value]);
      return emit(`let v${i} = select(${folded}, ${literal(NaN, type)}, subgroupAny(${nan}));`);
    }
    const name = `shared_${type}${width}`;
    this.#shared.set(name, wgslType(type, width));
    emit(`${name}[lane] = ${value}; workgroupBarrier();`);
    for (let s = y / 2; s >= 1; s /= 2) {
      emit(
        `if (part < ${s}u) { let p = ${name}[lane]; let q = ${name}[lane + ${s * x}u]; ${name}[lane] = ${combine("p", "q", width)}; } workgroupBarrier();`,
      );
    }
    emit(`let v${i} = ${name}[${x === 1 ? "0u" : `lane % ${x}u`}]; workgroupBarrier();`);
  }
}
