/** From a loop draft to a loop kernel: its sites become instructions, then its axes are merged where memory allows. */
import { BYTES, computeType, type ComputeType, type DType, roundTo } from "../dtype.ts";
import {
  type BinaryOp,
  type Instr,
  type LoopKernel,
  operandsOf,
  type Operand,
  type Store,
  type View,
} from "../kernel.ts";
import { isOp, type Node, REDUCE_KIND } from "../node.ts";
import { type Affine, contiguousStrides, isMovement, linearize } from "../views.ts";
import { isReduction, type LoopDraft } from "./draft.ts";
import type { Edge, Site } from "./space.ts";

/** Where a node's memory is: the number of its value, and its strides there. */
export interface Home {
  readonly value: number;
  readonly strides: readonly number[];
}

/** What emission asks about values and scalars. */
export interface Homes {
  /** The memory that a node is in or, for a reshape, shares. */
  of(node: Node): Home;
  slot(scalar: Node): number;
}

/** A kernel over the draft's own axes, in their order; operands' `buffer` is the number of a value. */
export interface RawKernel {
  readonly extents: readonly number[];
  readonly inner: readonly boolean[];
  readonly body: readonly Instr[];
  readonly stores: readonly Store[];
}

/** The kernel of a draft before its axes are put in order. */
export function emitRaw(draft: LoopDraft, homes: Homes): RawKernel {
  const emitter = new Emitter(draft, homes);
  const stores = draft.outputs.map((node): Store => {
    const site = draft.space.sites.get(node)![0]!;
    const value = emitter.computed(site);
    return { to: operand(site, node, homes.of(node)), value };
  });
  return { extents: draft.space.extents, inner: draft.space.inner, body: emitter.body, stores };
}

/** The view of `node`'s memory at `site`. */
export function operand({ access }: Site, node: Node, { value, strides }: Home): Operand {
  const { offset, coeffs } = linearize(access.index, strides, access.valid.length);
  const everywhere = access.valid.every((range) => range === null);
  const view: View = everywhere
    ? { offset, strides: coeffs }
    : { offset, strides: coeffs, valid: access.valid };
  return { buffer: value, dtype: node.dtype, view };
}

class Emitter {
  readonly body: Instr[] = [];
  readonly #draft: LoopDraft;
  readonly #homes: Homes;
  readonly #done = new Map<Site, number>();
  readonly #known = new Map<string, number>();

  constructor(draft: LoopDraft, homes: Homes) {
    this.#draft = draft;
    this.#homes = homes;
  }

  #push(instr: Instr): number {
    const key = JSON.stringify(instr, (_, x: unknown) =>
      typeof x === "number" && !Number.isFinite(x) ? String(x) : Object.is(x, -0) ? "-0" : x,
    );
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    this.#known.set(key, this.body.length);
    return this.body.push(instr) - 1;
  }

  #edge({ site, masked }: Edge): number {
    const value = this.computed(site);
    const loads = this.body[value]!.op === "load" && site.inputs === null;
    return masked && !loads ? this.#masked(site, value) : value;
  }

  /** The instruction that holds the value of a site. */
  computed(site: Site): number {
    const known = this.#done.get(site);
    if (known !== undefined) return known;
    const value = this.#compute(site);
    this.#done.set(site, value);
    return value;
  }

  #compute(site: Site): number {
    const { node, inputs } = site;
    if (inputs === null) return this.#load(site, node);
    if (inputs[0]?.site === site) return this.#load(site, node, node.inputs[0]!);
    const dtype = computeType(node.dtype);
    if (isOp(node, "const")) return this.#constant(node.attrs.value, node.dtype);
    if (isOp(node, "scalar")) return this.#push({ op: "scalar", slot: this.#homes.slot(node), dtype });
    if (isOp(node, "iota")) return this.#index(site.access.index[node.attrs.axis]!);
    const args = inputs.map((edge) => this.#edge(edge));
    const [a, b, c] = args as [number, number, number];
    if (isMovement(node)) return a;
    if (isReduction(node)) return this.#push({ op: "reduce", kind: REDUCE_KIND[node.op], a, dtype });
    if (isOp(node, "cast")) return this.#cast(a, node.attrs.to);
    if (isOp(node, "where")) return this.#push({ op: "where", a, b, c, dtype });
    if (args.length === 2) return this.#push({ op: node.op as BinaryOp, a, b, dtype });
    return this.#push({ op: node.op as "neg", a, dtype });
  }

  /** A reshape that is stored itself is loaded from what it reshapes, row-major both. */
  #load(site: Site, node: Node, from: Node = node): number {
    const dtype = computeType(node.dtype);
    if (site.access.valid.some((range) => range !== null && range[0] >= range[1]))
      return this.#constant(0, dtype);
    const home = this.#homes.of(from);
    const strides = from === node ? home.strides : contiguousStrides(node.shape);
    return this.#push({ op: "load", from: operand(site, node, { ...home, strides }), dtype });
  }

  #constant(value: number, dtype: DType): number {
    return this.#push({ op: "const", value: roundTo(dtype, value), dtype: computeType(dtype) });
  }

  #cast(a: number, to: DType): number {
    const from: ComputeType = this.body[a]!.dtype;
    return from === to ? a : this.#push({ op: "cast", a, to, dtype: computeType(to) });
  }

  /** An affine function of the kernel's indices, as i32. */
  #index({ offset, coeffs }: Affine): number {
    let sum: number | null = null;
    coeffs.forEach((c, axis) => {
      if (c === 0 || this.#draft.space.extents[axis] === 1) return;
      const index = this.#push({ op: "index", axis, dtype: "i32" });
      const term =
        c === 1 ? index : this.#push({ op: "mul", a: index, b: this.#constant(c, "i32"), dtype: "i32" });
      sum = sum === null ? term : this.#push({ op: "add", a: sum, b: term, dtype: "i32" });
    });
    if (sum === null) return this.#constant(offset, "i32");
    return offset === 0
      ? sum
      : this.#push({ op: "add", a: sum, b: this.#constant(offset, "i32"), dtype: "i32" });
  }

  /** `value` within the site's valid range, 0 outside. */
  #masked(site: Site, value: number): number {
    const { dtype } = this.body[value]!;
    const zero = this.#constant(0, dtype);
    let inside: number | null = null;
    const and = (test: number): void => {
      inside = inside === null ? test : this.#push({ op: "and", a: inside, b: test, dtype: "bool" });
    };
    for (const [axis, range] of site.access.valid.entries()) {
      if (!range) continue;
      const [from, to] = range;
      if (from >= to) return zero;
      const index = this.#push({ op: "index", axis, dtype: "i32" });
      if (from > 0) and(this.#push({ op: "le", a: this.#constant(from, "i32"), b: index, dtype: "bool" }));
      if (to < this.#draft.space.extents[axis]!)
        and(this.#push({ op: "lt", a: index, b: this.#constant(to, "i32"), dtype: "bool" }));
    }
    return inside === null ? value : this.#push({ op: "where", a: inside, b: value, c: zero, dtype });
  }
}

/** For each instruction, whether its value differs along inner axes. */
function variesWithinRows({ body, extents, inner }: RawKernel): boolean[] {
  const along = (axis: number): boolean => inner[axis]! && extents[axis]! > 1;
  const varies: boolean[] = [];
  for (const instr of body) {
    if (instr.op === "load") {
      const { strides, valid } = instr.from.view;
      varies.push(strides.some((s, axis) => along(axis) && (s !== 0 || (valid?.[axis] ?? null) !== null)));
    } else if (instr.op === "index") varies.push(along(instr.axis));
    else varies.push(instr.op !== "reduce" && operandsOf(instr).some((i) => varies[i]));
  }
  return varies;
}

/** Drops axes of length 1, puts outer axes first, and merges neighbours that every operand walks as one. */
export function canonical(raw: RawKernel): LoopKernel {
  const { extents, inner } = raw;
  const varies = variesWithinRows(raw);
  const order = [false, true].flatMap((side) =>
    extents.flatMap((n, axis) => (n > 1 && inner[axis] === side ? [axis] : [])),
  );
  const isRow = (store: Store): boolean =>
    !varies[store.value] &&
    store.to.view.strides.every((s, axis) => !inner[axis] || extents[axis] === 1 || s === 0);
  const views = [
    ...raw.body.flatMap((i) => (i.op === "load" ? [i.from.view] : [])),
    ...raw.stores.map((s) => s.to.view),
  ];
  const indexed = new Set(raw.body.flatMap((i) => (i.op === "index" ? [i.axis] : [])));

  // groups of axes that become one, each ordered from slow to fast
  const groups: number[][] = [];
  for (const axis of order) {
    const before = groups.at(-1);
    const last = before?.at(-1);
    const joins =
      last !== undefined &&
      inner[last] === inner[axis] &&
      !indexed.has(last) &&
      !indexed.has(axis) &&
      views.every((view) => mergesWith(view, last, axis, extents[axis]!));
    if (joins) before!.push(axis);
    else groups.push([axis]);
  }
  const outer = groups.filter(([axis]) => !inner[axis!]);
  const place = new Map(groups.flatMap((group, i) => group.map((axis) => [axis, i] as const)));
  const body = raw.body.map((instr): Instr => {
    if (instr.op === "load") return { ...instr, from: regroupOperand(instr.from, groups) };
    return instr.op === "index" ? { ...instr, axis: place.get(instr.axis)! } : instr;
  });
  const stores = raw.stores.map((store): Store => ({
    ...store,
    to: regroupOperand(store.to, isRow(store) ? outer : groups),
  }));
  const length = (group: readonly number[]): number => group.reduce((n, axis) => n * extents[axis]!, 1);
  return {
    type: "loop",
    outer: outer.map(length),
    inner: groups.slice(outer.length).map(length),
    body,
    stores,
  };
}

/** Whether `slow` and the `fast` axis inside of it, of length n, are one stride in a view. */
export function mergesWith({ strides, valid }: View, slow: number, fast: number, n: number): boolean {
  return strides[slow] === strides[fast]! * n && !valid?.[fast] && !valid?.[slow];
}

/** An operand over groups of axes: of each group the fastest axis gives the stride. */
export function regroupOperand(from: Operand, groups: readonly (readonly number[])[]): Operand {
  const { offset, strides, valid } = from.view;
  const fastest = groups.map((group) => group.at(-1)!);
  const ranges = fastest.map((axis) => valid?.[axis] ?? null);
  const view: View = { offset, strides: fastest.map((axis) => strides[axis]!) };
  return { ...from, view: ranges.some((range) => range !== null) ? { ...view, valid: ranges } : view };
}

/** Bytes that a kernel touches at least: each operand's distinct elements once. */
export function bytesTouched(kernel: LoopKernel): number {
  const extents = [...kernel.outer, ...kernel.inner];
  const of = ({ dtype, view }: Operand): number =>
    view.strides.reduce((n, stride, axis) => {
      const [from, to] = view.valid?.[axis] ?? [0, extents[axis]!];
      return stride === 0 ? n : n * (to - from);
    }, BYTES[dtype]);
  const loads = kernel.body.reduce((n, i) => (i.op === "load" ? n + of(i.from) : n), 0);
  return kernel.stores.reduce((n, s) => n + of(s.to), loads);
}
