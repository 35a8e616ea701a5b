/** Token ids and masks as users give them: rows of numbers, or tensors. */
import type { Device, Tensor } from "@tiedlora/core";

/** Rows of equal length, or a tensor [batch, length] (i32 for ids). */
export type Ids = Tensor | readonly ArrayLike<number>[];
export type IdsShape = [batch: number, length: number];

const isRows = (ids: Ids): ids is readonly ArrayLike<number>[] => Array.isArray(ids);

/** Checks rows of ids (those of a tensor cannot be checked here) and puts them on the device, [batch, length] i32. */
export function idsTensor(device: Device, ids: Ids, vocab: number): Tensor {
  if (!isRows(ids)) {
    if (ids.rank === 2 && ids.dtype === "i32") return ids;
    throw new TypeError(
      `token ids: a tensor ${ids.dtype} [${ids.shape.join(", ")}] was given; need i32 [batch, length]`,
    );
  }
  const flat = Int32Array.from(flatten(ids, "token ids"));
  const bad = flat.findIndex((id) => id < 0 || id >= vocab);
  if (bad >= 0) {
    const length = ids[0]!.length;
    throw new RangeError(
      `token ids: ${flat[bad]} in row ${Math.floor(bad / length)}, position ${bad % length}; the vocabulary has ${vocab}`,
    );
  }
  return device.tensor(flat, { shape: [ids.length, ids[0]!.length], dtype: "i32" });
}

/** A mask of the same shape as the ids, as f32. */
export function maskTensor(device: Device, mask: Ids, shape: readonly number[]): Tensor {
  const given = isRows(mask) ? [mask.length, mask[0]?.length ?? 0] : mask.shape;
  if (given.length !== 2 || given[0] !== shape[0] || given[1] !== shape[1]) {
    throw new RangeError(
      `mask: [${given.join(", ")}] was given for ids [${shape.join(", ")}]; need the same`,
    );
  }
  return isRows(mask) ? device.tensor(Float32Array.from(flatten(mask, "mask")), { shape }) : mask.cast("f32");
}

function flatten(rows: readonly ArrayLike<number>[], what: string): number[] {
  const length = rows[0]?.length ?? 0;
  if (length === 0) throw new RangeError(`${what}: empty; need at least one row with one token`);
  const other = rows.findIndex((row) => row.length !== length);
  if (other >= 0) {
    throw new RangeError(
      `${what}: row ${other} has ${rows[other]!.length} entries, row 0 has ${length}; pad them to one length`,
    );
  }
  return rows.flatMap((row) => Array.from(row));
}
