/** The maximum number of rows and columns of a picture. */
const MOST = 256;

export interface Picture {
  readonly shape: readonly number[];
  readonly rows: number;
  readonly columns: number;
  readonly values: Float32Array;
}

/** A tensor as a picture: its last axis gives the columns, all others the rows, evenly sampled beyond 256. A vector is folded. */
export function shrink(shape: readonly number[], values: Float32Array): Picture {
  const width = shape.length > 1 ? shape.at(-1)! : foldOf(values.length);
  const height = Math.max(1, values.length / width);
  const [rows, columns] = [Math.min(height, MOST), Math.min(width, MOST)];
  const picture = new Float32Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    const row = Math.floor((i * height) / rows) * width;
    for (let j = 0; j < columns; j++)
      picture[i * columns + j] = values[row + Math.floor((j * width) / columns)]!;
  }
  return { shape, rows, columns, values: picture };
}

/** The width of a folded vector: the largest divisor of `length` up to twice its square root, so that it is not too flat. */
function foldOf(length: number): number {
  for (let width = Math.floor(2 * Math.sqrt(length)); width > 1; width--)
    if (length % width === 0) return width;
  return length;
}
