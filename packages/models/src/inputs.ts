/** Token ids and masks as users give them: rows of numbers, or tensors. */
import { type Device, Tensor } from "@tiedlora/core";
import { refuse } from "@tiedlora/core/arguments";

/** Rows of equal length, or a tensor [batch, length] (i32 for ids). */
export type Ids = Tensor | readonly ArrayLike<number>[];
export type IdsShape = [batch: number, length: number];

const isRows = (ids: Ids): ids is readonly ArrayLike<number>[] => Array.isArray(ids);

/** Whether the result depends on a token; if not, its id may be anything. */
export type Matters = (row: number, position: number) => boolean;

/**
 * Checks rows of ids (ids in a tensor cannot be checked here) and puts them on the device, [batch, length] i32. Ids that do
 * not matter, such as padding, become 0 where the embedding has no row for them.
 */
export function idsTensor(device: Device, ids: Ids, vocab: number, matters: Matters = () => true): Tensor {
  const given: unknown = ids;
  if (!(given instanceof Tensor) && !Array.isArray(given) && !ArrayBuffer.isView(given))
    refuse("token ids", given, "list of rows", "an array of rows of ids, or a tensor [batch, length]");
  return tokensTensor(device, "token ids", ids, vocab, (_id, row, position) =>
    matters(row, position) ? null : 0,
  );
}

/** As `idsTensor`, for labels, which have the shape of the ids and may also be `ignored`. */
export function labelsTensor(
  device: Device,
  labels: Ids,
  shape: readonly number[],
  vocab: number,
  ignored: number | null,
): Tensor {
  const tokens = tokensTensor(device, "labels", labels, vocab, (id) => (id === ignored ? ignored : null));
  checkLike("labels", tokens.shape, shape);
  return tokens;
}

/** The replacement of an id outside of the vocabulary; null if such an id is an error. */
type Instead = (id: number, row: number, position: number) => number | null;

function tokensTensor(device: Device, what: string, ids: Ids, vocab: number, instead: Instead): Tensor {
  if (!isRows(ids)) {
    const given: unknown = ids;
    if (ArrayBuffer.isView(given)) throw flatError(what, (given as Int32Array).length);
    if (ids.rank === 2 && ids.dtype === "i32") return ids;
    throw new TypeError(
      `${what}: a tensor ${ids.dtype} [${ids.shape.join(", ")}] was given; need i32 [batch, length]`,
    );
  }
  const flat = flatten(ids, what);
  const length = ids[0]!.length;
  for (const [i, id] of flat.entries()) {
    if (Number.isInteger(id) && id >= 0 && id < vocab) continue;
    const [row, position] = [Math.floor(i / length), i % length];
    const other = instead(id, row, position);
    if (other === null)
      throw new RangeError(
        `${what}: ${id} in row ${row}, position ${position}; the vocabulary has ${vocab}: need whole numbers from 0 to ` +
          `${vocab - 1}. Is it the model's own tokenizer?`,
      );
    flat[i] = other;
  }
  return device.tensor(Int32Array.from(flat), { shape: [ids.length, length], dtype: "i32" });
}

/** For a forward pass: whether the attention mask shows a token. */
export function shownBy(mask: readonly ArrayLike<number>[] | undefined): Matters {
  return (row, position) => !mask || mask[row]?.[position] !== 0;
}

/** For a loss: whether a token is predicted, or precedes a predicted token of its segment. */
export function readFor(mask: Ids | undefined, segments: readonly ArrayLike<number>[] | undefined): Matters {
  if (!mask || !isRows(mask)) return () => true;
  return (row, position) => {
    const [counts, segment] = [mask[row], segments?.[row]];
    if (counts === undefined) return true;
    for (let t = position; t < counts.length && segment?.[t] === segment?.[position]; t++)
      if (counts[t] !== 0) return true;
    return false;
  };
}

/** Whether token `t` of a row, at least 1, is predicted: the first of a segment is not, since the segment before would predict it. */
export function isPredicted(segments: ArrayLike<number> | undefined, t: number): boolean {
  return segments?.[t] === segments?.[t - 1];
}

/** The tokens that count in a loss, [batch, length - 1] as f32: of those of `mask`, the predicted ones. Null if all tokens count. */
export function lossMask(
  device: Device,
  mask: Ids | undefined,
  segments: readonly ArrayLike<number>[] | undefined,
  [batch, length]: readonly number[],
): Tensor | null {
  const shape = [batch!, length! - 1];
  const given = mask && maskTensor(device, mask, [batch!, length!]).narrow(1, 1, shape[1]!);
  if (segments === undefined) return given ?? null;
  checkRows(segments, "segments", batch!, length!);
  const inner = segments.flatMap((row) =>
    Array.from({ length: shape[1]! }, (_, t) => Number(isPredicted(row, t + 1))),
  );
  const within = device.tensor(Float32Array.from(inner), { shape });
  return given ? given.mul(within) : within;
}

/**
 * The segments of all tokens but the last of each row, which predicts nothing. The last token of every other segment predicts
 * nothing either: it gets a segment of its own, so that the rest is as long as when the segment is read alone.
 */
export function readSegments(segments: readonly ArrayLike<number>[]): number[][] {
  return segments.map((row) => {
    const own = runs(row);
    return own.slice(0, -1).map((run, t) => (own[t + 1] === run ? 2 * run : 2 * run + 1));
  });
}

function flatError(what: string, count: number): TypeError {
  return new TypeError(
    `${what}: a flat list of ${count} numbers was given; need rows of them, e.g. [[1, 2]]`,
  );
}

function checkLike(what: string, given: readonly number[], shape: readonly number[]): void {
  if (given.length !== 2 || given[0] !== shape[0] || given[1] !== shape[1]) {
    throw new RangeError(
      `${what}: [${given.join(", ")}] was given for ids [${shape.join(", ")}]; need the same`,
    );
  }
}

/** A mask of the same shape as the ids, as f32. */
function maskTensor(device: Device, mask: Ids, shape: readonly number[]): Tensor {
  const given = isRows(mask) ? [mask.length, mask[0]?.length ?? 0] : mask.shape;
  checkLike("mask", given, shape);
  return isRows(mask) ? device.tensor(Float32Array.from(flatten(mask, "mask")), { shape }) : mask.cast("f32");
}

/** Replaces each run of equal numbers in a row by its index, from 0 on. */
export function runs(row: ArrayLike<number>): number[] {
  let run = 0;
  return Array.from(row, (segment, t) => (t > 0 && segment !== row[t - 1] ? ++run : run));
}

/** Throws RangeError unless there is a number for each token. */
export function checkRows(
  rows: readonly ArrayLike<number>[] | undefined,
  what: string,
  batch: number,
  length: number,
): void {
  if (!rows || (rows.length === batch && rows.every((row) => row.length === length))) return;
  throw new RangeError(
    `${what}: [${rows.length}, ${rows[0]?.length ?? 0}] was given; need [${batch}, ${length}], as the ids`,
  );
}

/** The numbers of all rows, one after another. */
function flatten(rows: readonly ArrayLike<number>[], what: string): Float64Array {
  if (typeof rows[0] === "number") throw flatError(what, rows.length);
  const length = rows[0]?.length ?? 0;
  if (length === 0)
    throw new RangeError(`${what}: an empty list was given; need at least one row with one token`);
  const other = rows.findIndex((row) => row.length !== length);
  if (other >= 0) {
    throw new RangeError(
      `${what}: row ${other} has ${rows[other]!.length} entries, row 0 has ${length}; pad them to one length`,
    );
  }
  const flat = new Float64Array(rows.length * length);
  rows.forEach((row, i) => flat.set(row, i * length));
  return flat;
}

/** Returns vectors that are given in place of embeddings. Throws unless they have the shape of the ids and the model's width. */
export function checkEmbeddings(embeddings: Tensor, shape: readonly number[]): Tensor {
  const given: unknown = embeddings;
  if (!(given instanceof Tensor)) refuse("embeddings", given, "tensor", `one of shape [${shape.join(", ")}]`);
  if (embeddings.shape.join() === shape.join()) return embeddings;
  throw new RangeError(
    `embeddings: [${embeddings.shape.join(", ")}] was given; need [${shape.join(", ")}], a vector of the model's width for each id`,
  );
}
