/** A tensor as a picture of at most 256 × 256. */
const MOST = 256;

export interface Picture {
  readonly shape: readonly number[];
  readonly rows: number;
  readonly columns: number;
  readonly values: Float32Array;
}

/** The last axis is columns, all others are rows; of more than 256, evenly spaced ones are taken. Vectors are folded. */
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

/** The largest divisor up to the square root's double: a vector as a rectangle that is not too flat. */
function foldOf(length: number): number {
  for (let width = Math.floor(2 * Math.sqrt(length)); width > 1; width--)
    if (length % width === 0) return width;
  return length;
}
