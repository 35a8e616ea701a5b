/**
 * Sorting and the largest or smallest elements, composed of comparisons. Short axes are sorted by counting, for each element, those
 * that come before it: two kernels of n² comparisons. Long axes go through a bitonic network (Batcher 1968): log²(n) / 2 kernels of n.
 */
import { iota, isFloat, type Tensor, where } from "@tiedlora/core";
import {
  checkName,
  checkOptions,
  checkTensors,
  checkWhole,
  describeArgument,
  show,
} from "@tiedlora/core/extend";

/** Elements in order, and where each of them was. */
export interface Sorted {
  /** The elements, of the type of the sorted tensor. Gradients flow back to the places that the elements come from. */
  readonly values: Tensor;
  /** The index (i32) of each element along the sorted axis. */
  readonly indices: Tensor;
}

/** The axis along which elements are sorted, and their order. */
export interface SortOptions {
  /** Default: the last. */
  readonly axis?: number;
  /** Default: "ascending". */
  readonly order?: "ascending" | "descending";
}

/** Up to this length, counting is faster than the network, whose kernels have to be compiled, too. */
const COUNTED = 1024;

/** What is sorted: elements of which none is NaN, and whole numbers that decide between equal ones. All pairs differ. */
interface Keys {
  readonly value: Tensor;
  readonly tie: Tensor;
}
type Before = (a: Keys, b: Keys) => Tensor;

const ascending: Before = (a, b) => a.value.lt(b.value).or(a.value.eq(b.value).and(a.tie.lt(b.tie)));
const descending: Before = (a, b) => a.value.gt(b.value).or(a.value.eq(b.value).and(a.tie.lt(b.tie)));

const onKeys = ({ value, tie }: Keys, f: (x: Tensor) => Tensor): Keys => ({ value: f(value), tie: f(tie) });

/**
 * The elements along an axis in order. The sort is stable: equal elements keep their order. NaN counts as the largest number. Throws
 * for bool tensors.
 */
export function sort(x: Tensor, options: SortOptions = {}): Sorted {
  const { axis = -1, order = "ascending" } = checkOptions("sort", options, '{ order: "descending" }', [
    "axis",
    "order",
  ]);
  checkName("sort: order", order, ["ascending", "descending"]);
  return first("sort", x, null, axis, order);
}

/**
 * The `k` largest elements along an axis, the largest first, and their indices; with `order: "ascending"`, the `k` smallest, the
 * smallest first. Of equal elements, the earlier comes first; NaN counts as the largest. Throws if the axis has fewer than `k`.
 */
export function topK(x: Tensor, k: number, options: SortOptions = {}): Sorted {
  const { axis = -1, order = "descending" } = checkOptions("topK", options, "{ axis: 0 }", ["axis", "order"]);
  checkName("topK: order", order, ["ascending", "descending"]);
  return first("topK", x, k, axis, order);
}

function first(
  what: string,
  x: Tensor,
  k: number | null,
  axis: number,
  order: "ascending" | "descending",
): Sorted {
  checkTensors(what, [x]);
  if (x.dtype === "bool") throw new TypeError(`${what}: the tensor is bool; use .cast("i32") first`);
  if (x.rank === 0) throw new RangeError(`${what}: a single number [] has no axis; use .reshape([1]) first`);
  checkWhole(`${what}: axis`, axis, -x.rank, x.rank - 1);
  const moved = x.transpose(axis, -1);
  const n = moved.shape.at(-1)!;
  if (k !== null && !(Number.isSafeInteger(k) && k >= 0 && k <= n))
    throw new RangeError(
      `${what}: k is ${describeArgument(k)} for axis ${axis} of ${show(x.shape)}; give a whole number in 0 … ${n}, the axis' length`,
    );
  const count = k ?? n;
  const before = order === "ascending" ? ascending : descending;
  const indices =
    n <= COUNTED ? byCounting(keysOf(moved, order), before, count) : byNetwork(moved, order, before);
  const kept = indices.narrow(-1, 0, count);
  return {
    values: moved.gather(-1, kept).cast(x.dtype).transpose(axis, -1),
    indices: kept.transpose(axis, -1),
  };
}

/** The keys along the last axis. NaN becomes infinity, with a tie that puts it beyond all others: behind, or in front. */
function keysOf(x: Tensor, order: "ascending" | "descending"): Keys {
  const value = x.detach();
  const at = iota(x.shape, x.rank - 1);
  if (!isFloat(x.dtype)) return { value, tie: at };
  const n = x.shape.at(-1)!;
  const isNaN = value.isNaN();
  const beyond = order === "ascending" ? n : -n;
  return { value: where(isNaN, Infinity, value), tie: where(isNaN, at.add(beyond), at) };
}

/** The indices of the first `count` elements, by the number of elements before each. */
function byCounting(keys: Keys, before: Before, count: number): Tensor {
  const { shape } = keys.value;
  const n = shape.at(-1)!;
  const rank = before(
    onKeys(keys, (x) => x.unsqueeze(-2)),
    onKeys(keys, (x) => x.unsqueeze(-1)),
  )
    .cast("i32")
    .sum(-1); // [.., n]
  const table = [...shape.slice(0, -1), count, n];
  const hit = rank.unsqueeze(-2).eq(iota(table, table.length - 2));
  return where(hit, iota(table, table.length - 1), 0).sum(-1);
}

/** All indices in order, by a network that merges sorted runs of 1, 2, 4, … elements. */
function byNetwork(x: Tensor, order: "ascending" | "descending", before: Before): Tensor {
  const n = x.shape.at(-1)!;
  const size = 2 ** Math.ceil(Math.log2(n));
  let keys = padded(keysOf(x, order), size, order);
  const outer = x.shape.slice(0, -1);
  for (let run = 2; run <= size; run *= 2) {
    // The first step of a merge compares each element with its mirror image in the other run, so that all runs ascend.
    for (let stride = run / 2; stride >= 1; stride /= 2) {
      const pairs = [...outer, size / (2 * stride), 2, stride];
      const self = onKeys(keys, (t) => t.reshape(pairs));
      const other = onKeys(self, (t) => t.flip(stride === run / 2 ? [-2, -1] : [-2]));
      const isFirst = iota(pairs, pairs.length - 2).eq(0);
      const swap = where(isFirst, before(other, self).cast("i32"), before(self, other).cast("i32")).cast(
        "bool",
      );
      keys = {
        value: where(swap, other.value, self.value).reshape([...outer, size]),
        tie: where(swap, other.tie, self.tie).reshape([...outer, size]),
      };
    }
  }
  const tie = keys.tie.narrow(-1, 0, n);
  return isFloat(x.dtype) ? where(tie.lt(0), tie.add(n), where(tie.ge(n), tie.sub(n), tie)) : tie;
}

/** The largest and the smallest number of each integer type. */
const LIMITS = { i32: [2 ** 31 - 1, -(2 ** 31)], u32: [2 ** 32 - 1, 0] } as const;

/** The keys with elements behind them that come last. */
function padded({ value, tie }: Keys, size: number, order: "ascending" | "descending"): Keys {
  const n = value.shape.at(-1)!;
  const widths = value.shape.map((_, i): [number, number] => (i === value.rank - 1 ? [0, size - n] : [0, 0]));
  const shape = [...value.shape.slice(0, -1), size];
  const at = iota(shape, shape.length - 1);
  const limits = value.dtype === "i32" || value.dtype === "u32" ? LIMITS[value.dtype] : [Infinity, -Infinity];
  const last = limits[order === "ascending" ? 0 : 1];
  return {
    value: where(at.lt(n), value.pad(widths), last),
    tie: where(at.lt(n), tie.pad(widths), at.add(2 * n)),
  };
}
