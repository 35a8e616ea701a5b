/** The leading part of a singular value decomposition, computed on the host in float64; deterministic. */
import { key, normalArray } from "@tiedlora/core";

export interface SingularVectors {
  /** [rows, rank]: orthonormal columns. */
  readonly left: Float32Array;
  /** [rank], in descending order. */
  readonly values: Float32Array;
  /** [rank, columns]: orthonormal rows. */
  readonly right: Float32Array;
}

const MAX_SWEEPS = 200;
const TOLERANCE = 1e-12;

/**
 * The `rank` largest singular values of a row-major matrix with their vectors, by subspace iteration with up to 8 extra vectors
 * (Halko, Martinsson, Tropp 2011). Signs are such that in each right vector the first element above 1e-6 in magnitude is positive.
 * Throws RangeError if `rank` exceeds the number of rows or columns.
 */
export function leadingSingularVectors(
  matrix: ArrayLike<number>,
  rows: number,
  columns: number,
  rank: number,
): SingularVectors {
  const limit = Math.min(rows, columns);
  if (rank > limit)
    throw new RangeError(
      `rank ${rank} of a ${rows}×${columns} weight; it has at most ${limit} singular vectors`,
    );
  const width = Math.min(limit, rank + 8);
  const start = normalArray(key(0).fold("subspace"), width * columns);
  let basis: Float64Array[] = Array.from({ length: width }, (_, i) =>
    Float64Array.from(start.subarray(i * columns, (i + 1) * columns)),
  );
  orthonormalize(basis);
  let previous: Float64Array = new Float64Array(width);
  for (let sweep = 0; sweep < MAX_SWEEPS; sweep++) {
    const image = basis.map((vector) => timesColumns(matrix, rows, columns, vector)); // each W x, [rows]
    orthonormalize(image);
    basis = image.map((vector) => timesRows(matrix, rows, columns, vector)); // each Wᵀ y, [columns]
    const values = rotate(basis);
    const change = Math.max(...values.slice(0, rank).map((value, i) => Math.abs(value - previous[i]!)));
    normalizeAll(basis);
    if (change <= TOLERANCE * (values[0] || 1)) break;
    previous = values;
  }
  return assemble(matrix, rows, columns, basis.slice(0, rank));
}

function timesColumns(
  matrix: ArrayLike<number>,
  rows: number,
  columns: number,
  x: Float64Array,
): Float64Array {
  const y = new Float64Array(rows);
  for (let i = 0; i < rows; i++) {
    let sum = 0;
    for (let j = 0; j < columns; j++) sum += matrix[i * columns + j]! * x[j]!;
    y[i] = sum;
  }
  return y;
}

function timesRows(matrix: ArrayLike<number>, rows: number, columns: number, y: Float64Array): Float64Array {
  const x = new Float64Array(columns);
  for (let i = 0; i < rows; i++) {
    const factor = y[i]!;
    for (let j = 0; j < columns; j++) x[j]! += matrix[i * columns + j]! * factor;
  }
  return x;
}

const dot = (a: Float64Array, b: Float64Array): number => a.reduce((sum, value, i) => sum + value * b[i]!, 0);

/** Orthonormalizes vectors in place, by two passes of Gram–Schmidt. A vector that depends on earlier ones becomes zero. */
function orthonormalize(vectors: Float64Array[]): void {
  vectors.forEach((vector, i) => {
    const before = Math.sqrt(dot(vector, vector));
    for (let pass = 0; pass < 2; pass++) {
      for (let j = 0; j < i; j++) addScaled(vector, vectors[j]!, -dot(vector, vectors[j]!));
    }
    const norm = Math.sqrt(dot(vector, vector));
    const factor = norm > 1e-14 * before ? 1 / norm : 0;
    vector.forEach((value, k) => (vector[k] = value * factor));
  });
}

function addScaled(to: Float64Array, from: Float64Array, factor: number): void {
  for (let i = 0; i < to.length; i++) to[i]! += factor * from[i]!;
}

/** One-sided Jacobi: rotates vectors until they are orthogonal, sorts them by descending length, and returns the lengths. */
function rotate(vectors: Float64Array[]): Float64Array {
  for (let sweep = 0, off = 1; sweep < 60 && off > 1e-15; sweep++) {
    off = 0;
    for (let p = 0; p < vectors.length; p++) {
      for (let q = p + 1; q < vectors.length; q++) off = Math.max(off, rotatePair(vectors[p]!, vectors[q]!));
    }
  }
  const lengths = vectors.map((vector) => ({ vector, length: Math.sqrt(dot(vector, vector)) }));
  lengths.sort((a, b) => b.length - a.length);
  lengths.forEach(({ vector }, i) => (vectors[i] = vector));
  return Float64Array.from(lengths, ({ length }) => length);
}

/** Makes two vectors orthogonal by a rotation; returns the magnitude of the cosine that was between them. */
function rotatePair(a: Float64Array, b: Float64Array): number {
  const [aa, bb, ab] = [dot(a, a), dot(b, b), dot(a, b)];
  if (aa === 0 || bb === 0) return 0;
  const cosine = Math.abs(ab) / Math.sqrt(aa * bb);
  if (cosine <= 1e-15) return 0;
  const zeta = (bb - aa) / (2 * ab);
  const t = Math.sign(zeta || 1) / (Math.abs(zeta) + Math.sqrt(1 + zeta * zeta));
  const c = 1 / Math.sqrt(1 + t * t);
  const s = c * t;
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i]!, b[i]!];
    a[i] = c * x - s * y;
    b[i] = s * x + c * y;
  }
  return cosine;
}

function normalizeAll(vectors: Float64Array[]): void {
  for (const vector of vectors) {
    const norm = Math.sqrt(dot(vector, vector));
    if (norm > 0) vector.forEach((value, i) => (vector[i] = value / norm));
  }
}

function assemble(
  matrix: ArrayLike<number>,
  rows: number,
  columns: number,
  basis: Float64Array[],
): SingularVectors {
  const rank = basis.length;
  const left = new Float32Array(rows * rank);
  const values = new Float32Array(rank);
  const right = new Float32Array(rank * columns);
  basis.forEach((vector, k) => {
    const sign = (vector.find((value) => Math.abs(value) > 1e-6) ?? 1) < 0 ? -1 : 1;
    const image = timesColumns(matrix, rows, columns, vector);
    const value = Math.sqrt(dot(image, image));
    values[k] = value;
    right.set(
      vector.map((v) => v * sign),
      k * columns,
    );
    for (let i = 0; i < rows; i++) left[i * rank + k] = value > 0 ? (sign * image[i]!) / value : 0;
  });
  return { left, values, right };
}
