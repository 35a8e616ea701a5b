/** Functions that move elements along an axis, or set some of them. */
import { concat, iota, ones, sameShape, type Tensor, where } from "@tiedlora/core";
import { checkTensors, checkWhole, refuse, show } from "@tiedlora/core/extend";

/**
 * The elements moved `shift` places toward higher indices along `axis`; those that leave the end enter at the start. Negative shifts
 * move them the other way. Several axes take as many shifts (torch.roll).
 */
export function roll(
  x: Tensor,
  shift: number | readonly number[],
  axis: number | readonly number[] = -1,
): Tensor {
  checkTensors("roll", [x]);
  const [shifts, axes] = [[shift].flat(), [axis].flat()];
  if (shifts.length !== axes.length)
    throw new RangeError(`roll: ${shifts.length} shifts for ${axes.length} axes; give one for each axis`);
  return shifts.reduce((rolled, by, i) => rollOne(rolled, by, axes[i]!), x);
}

function rollOne(x: Tensor, shift: number, axis: number): Tensor {
  if (!Number.isSafeInteger(shift)) refuse("roll: shift", shift, "whole number", "one, e.g. -1");
  checkWhole("roll: axis", axis, -x.rank, x.rank - 1);
  const n = x.shape.at(axis)!;
  const by = n === 0 ? 0 : ((shift % n) + n) % n;
  if (by === 0) return x;
  const [front, back] = [x.narrow(axis, 0, n - by), x.narrow(axis, n - by, by)];
  return concat([back, front], axis);
}

/**
 * x with `values` set at the positions along `axis` that `index` (i32) gives, as torch.scatter: for axis 1,
 * out[i][index[i][j]] = values[i][j]. Where an index repeats, the last value counts. An index out of range sets nothing. Gradients
 * flow to the values that are set, and to the elements of x that are not replaced. O(n · m) comparisons for m values a row.
 */
export function scatterSet(x: Tensor, axis: number, index: Tensor, values: Tensor): Tensor {
  checkTensors("scatterSet", [x, index, values]);
  const at = checkScatter(x, axis, index, values);
  if (index.size === 0) return x;
  // for each place in the rows that the index has: the position of the last value for it, or -1
  const n = x.shape[at]!;
  const m = index.shape[at]!;
  const spread = [...index.shape.slice(0, at), n, m, ...index.shape.slice(at + 1)];
  const hit = index.cast("i32").unsqueeze(at).eq(iota(spread, at));
  const isSet = hit
    .cast("i32")
    .max(at + 1)
    .cast("bool");
  const last = where(hit, iota(spread, at + 1), 0).max(at + 1);
  const fresh = values.gather(at, last);
  const covered = x.shape.map((d, i): [number, number] => [0, i === at ? 0 : d - index.shape[i]!]);
  if (covered.every(([, after]) => after === 0)) return where(isSet, fresh, x);
  const inside = ones(isSet.shape, "i32").mul(isSet.cast("i32")).pad(covered).cast("bool");
  return where(inside, fresh.pad(covered), x);
}

function checkScatter(x: Tensor, axis: number, index: Tensor, values: Tensor): number {
  checkWhole("scatterSet: axis", axis, -x.rank, x.rank - 1);
  const at = axis < 0 ? axis + x.rank : axis;
  if (index.dtype !== "i32" && index.dtype !== "u32")
    throw new TypeError(`scatterSet: the index is ${index.dtype}, but i32 is needed; use .cast("i32")`);
  if (!sameShape(index.shape, values.shape))
    throw new RangeError(
      `scatterSet: index ${show(index.shape)} and values ${show(values.shape)} must have one shape`,
    );
  const fits = index.rank === x.rank && index.shape.every((d, i) => i === at || d <= x.shape[i]!);
  if (!fits || x.rank === 0)
    throw new RangeError(
      `scatterSet: index ${show(index.shape)} must have the rank of ${show(x.shape)} and not exceed it beside axis ${at}`,
    );
  return at;
}
