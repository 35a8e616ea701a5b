/** Checks that the functions of linear algebra share, and small helpers. */
import { arange, isFloat, type Tensor } from "@tiedlora/core";
import { broadcastShapes, checkTensors, show } from "@tiedlora/core/extend";

/** Returns the number of rows and columns. Throws unless `a` is a tensor of floats with two axes or more, of length 1 or more. */
export function checkMatrix(what: string, a: Tensor): [rows: number, columns: number] {
  checkTensors(what, [a]);
  if (!isFloat(a.dtype))
    throw new TypeError(
      `${what}: the tensor is ${a.dtype}, but a float type is needed; use .cast("f32") first`,
    );
  const [rows = 0, columns = 0] = a.shape.slice(-2);
  if (a.rank < 2 || rows === 0 || columns === 0)
    throw new RangeError(
      `${what}: ${show(a.shape)} is no matrix; give [..., rows, columns], neither of length 0`,
    );
  return [rows, columns];
}

/** Returns the number of rows. Throws unless `a` is a square matrix, or a batch of them. */
export function checkSquare(what: string, a: Tensor): number {
  const [rows, columns] = checkMatrix(what, a);
  if (rows !== columns)
    throw new RangeError(`${what}: ${show(a.shape)} is not square; give as many rows as columns`);
  return rows;
}

/** The operands of A X = B with the batch axes of both. Throws unless A is square and B has as many rows. */
export function checkSystem(what: string, a: Tensor, b: Tensor): [a: Tensor, b: Tensor] {
  const n = checkSquare(what, a);
  const [rows, columns] = checkMatrix(`${what}: the right side`, b);
  if (rows !== n)
    throw new RangeError(
      `${what}: the right side ${show(b.shape)} has ${rows} rows, and the matrix ${show(a.shape)} has ${n}; make them equal`,
    );
  const batch = broadcastShapes(a.shape.slice(0, -2), b.shape.slice(0, -2), what);
  return [a.expand([...batch, n, n]), b.expand([...batch, n, columns])];
}

/** The identity [n, n], of numbers 0 and 1 in f32. */
export function identity(n: number): Tensor {
  return arange(n).oneHot(n);
}
