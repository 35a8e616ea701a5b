/**
 * The form of loop kernels that backends see: outer axes first, neighboring axes merged where every operand allows it.
 * @module
 */
import type { Epilogue, Instr, LoopKernel, Operand, Store, View } from "./kernel.ts";
import { same } from "./family.ts";
import { product } from "./shape.ts";

/** The iteration space of a kernel, its axes in any order. */
export interface Space {
  readonly extents: readonly number[];
  /** Per axis, whether reductions fold it. */
  readonly inner: readonly boolean[];
}

/** A kernel over the axes of its space, inner and outer ones in any order. */
export interface Unmerged {
  readonly space: Space;
  readonly body: readonly Instr[];
  /** A store of one value per row has a view over all axes, too; its strides along inner axes are ignored. */
  readonly stores: readonly (Store & { readonly perRow: boolean })[];
}

/** The kernel with merged axes. */
export function loopKernel(kernel: Unmerged): LoopKernel {
  const { extents, inner } = kernel.space;
  const groups: number[][] = []; // axes that are merged into one, each group from slow to fast
  for (const axis of [...inner.keys()].sort((a, b) => Number(inner[a]) - Number(inner[b]))) {
    const last = groups.at(-1)?.at(-1);
    const joins = last !== undefined && inner[last] === inner[axis] && mergeable(kernel, [last, axis]);
    if (joins) groups.at(-1)!.push(axis);
    else groups.push([axis]);
  }
  const lengths = groups.map((group) => product(group.map((axis) => extents[axis]!)));
  const outer = groups.filter(([axis]) => !inner[axis!]).length;
  return {
    type: "loop",
    outer: lengths.slice(0, outer),
    inner: lengths.slice(outer),
    ...merged(kernel, groups, outer),
  };
}

/** The epilogue of a matmul, over the axes of its result; null if an operand has no single stride along each of them. */
export function epilogueOver(shape: readonly number[], kernel: Unmerged): Epilogue | null {
  const { extents } = kernel.space;
  let axis = 0;
  const groups = shape.map((length) => {
    const group = [axis];
    for (let n = extents[axis++]!; n < length; n *= extents[axis++]!) group.push(axis);
    return group;
  });
  if (!groups.every((group) => mergeable(kernel, group))) return null;
  return merged(kernel, groups, groups.length);
}

/** Whether neighboring axes, from slow to fast, are one stride in every operand. */
function mergeable({ space, body, stores }: Unmerged, axes: readonly number[]): boolean {
  if (axes.length === 1) return true;
  const { extents } = space;
  const indexed = body.some((instr) => instr.op === "index" && axes.includes(instr.axis));
  const loads = body.flatMap((instr) => (instr.op === "load" ? [instr.from] : []));
  const oneStride = ({ strides, valid }: View): boolean =>
    axes.every((axis, i) => {
      const slower = axes[i - 1];
      return (
        !valid?.[axis] && (slower === undefined || same(strides[slower]!, strides[axis]! * extents[axis]!))
      );
    });
  return !indexed && [...loads, ...stores.map((store) => store.to)].every(({ view }) => oneStride(view));
}

/** The kernel with each group of axes merged; stores of one value per row keep only the outer axes. */
function merged({ body, stores }: Unmerged, groups: readonly (readonly number[])[], outer: number): Epilogue {
  const place = new Map(groups.flatMap((group, i) => group.map((axis) => [axis, i] as const)));
  return {
    body: body.map((instr): Instr => {
      if (instr.op === "load") return { ...instr, from: regrouped(instr.from, groups) };
      return instr.op === "index" ? { ...instr, axis: place.get(instr.axis)! } : instr;
    }),
    stores: stores.map(({ to, value, perRow }) => ({
      to: regrouped(to, perRow ? groups.slice(0, outer) : groups),
      value,
    })),
  };
}

/** An operand over groups of axes: the stride of each group is that of its fastest axis. */
function regrouped(from: Operand, groups: readonly (readonly number[])[]): Operand {
  const { strides, valid, ...start } = from.view;
  const fastest = groups.map((group) => group.at(-1)!);
  const ranges = fastest.map((axis) => valid?.[axis] ?? null);
  const view: View = { ...start, strides: fastest.map((axis) => strides[axis]!) };
  return { ...from, view: ranges.some((range) => range !== null) ? { ...view, valid: ranges } : view };
}
