/** A tensor as a picture of at most 256 × 256. */
const MOST = 256;

export interface Picture {
  readonly shape: readonly number[];
  readonly rows: number;
  readonly columns: number;
  readonly values: Float32Array;
}

/** The last axis is columns, all others are rows; of more than 256, evenly spaced ones are taken. */
export function shrink(shape: readonly number[], values: Float32Array): Picture {
  const width = shape.at(-1) ?? 1;
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
