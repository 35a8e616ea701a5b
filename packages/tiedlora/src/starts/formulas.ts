/** The start values of A [rank, in] and B [out, rank] that papers propose in place of LoRA's, each as a formula on the host. */
import { key as keyOf, type Key, normalArray } from "@tiedlora/core";
import { leadingSingularVectors } from "../linalg/svd.ts";

/** The name of a start. */
export type StartName = "pissa" | "olora" | "orthogonal" | "eva" | "corda" | "lora-ga" | "loftq";

/** What a start is computed from, at one adapted target. */
export interface StartContext {
  /** The frozen weight [rows, columns] = [out, in], row-major. */
  readonly weight: Float32Array;
  readonly rows: number;
  readonly columns: number;
  readonly rank: number;
  /** What B A is multiplied by. */
  readonly scale: number;
  /** The mean of x xᵀ over the inputs x of the target, [in, in]. */
  readonly moments?: Float64Array;
  /** The mean gradient of the loss with respect to the weight, [out, in]. */
  readonly gradient?: Float64Array;
  /** The weight before it was quantized, [out, in]. */
  readonly original?: Float32Array;
  readonly key?: Key;
}

/** Start values of A and B, row-major. */
export interface StartValues {
  readonly A: Float32Array;
  readonly B: Float32Array;
}

/** A start: its formula, what it needs, and whether B A is not zero, so that it has to be subtracted. */
export interface Start {
  readonly needs: "weight" | "moments" | "gradient" | "original";
  readonly subtracted: boolean;
  /** The start values at a site. */
  readonly formula: (context: StartContext) => StartValues;
}

/** A with its row k, and B with its column k, multiplied by by(k). */
function scaledBy({ A, B }: StartValues, rank: number, by: (k: number) => number): StartValues {
  const columns = A.length / rank;
  return {
    A: A.map((value, i) => value * by(Math.floor(i / columns))),
    B: B.map((value, i) => value * by(i % rank)),
  };
}

/** √S Vᵀ and U √S of the leading singular values of a matrix, divided by the scale. */
function principal(matrix: ArrayLike<number>, { rows, columns, rank, scale }: StartContext): StartValues {
  const { left, values, right } = leadingSingularVectors(matrix, rows, columns, rank);
  const sign = Math.sign(scale);
  const root = scaledBy({ A: right, B: left }, rank, (k) => Math.sqrt(values[k]! / Math.abs(scale)));
  return sign < 0 ? { A: root.A, B: root.B.map((value) => -value) } : root;
}

/** PiSSA (Meng et al. 2024, arXiv 2404.02948): the principal singular values and vectors of the weight. */
const pissa = (context: StartContext): StartValues => principal(context.weight, context);

/** OLoRA (Büyükakyüz 2024, arXiv 2406.01775): the first columns of Q and rows of R, W = Q R. */
function olora({ weight, rows, columns, rank }: StartContext): StartValues {
  if (rank > Math.min(rows, columns))
    throw new RangeError(`olora: rank ${rank} of a ${rows}×${columns} weight; it has at most ${Math.min(rows, columns)} columns of Q`); // prettier-ignore
  const Q = Array.from({ length: rank }, (_, k) => Float64Array.from({ length: rows }, (_row, i) => weight[i * columns + k]!)); // prettier-ignore
  Q.forEach((q, k) => orthonormalize(q, Q.slice(0, k)));
  const A = new Float32Array(rank * columns);
  const B = new Float32Array(rows * rank);
  Q.forEach((q, k) => {
    const row = new Float64Array(columns);
    for (let i = 0; i < rows; i++) {
      B[i * rank + k] = q[i]!;
      for (let j = 0; j < columns; j++) row[j]! += q[i]! * weight[i * columns + j]!;
    }
    A.set(row, k * columns);
  });
  return { A, B };
}

/** Two passes of Gram–Schmidt; zeros if `x` depends on `others`. */
function orthonormalize(x: Float64Array, others: readonly Float64Array[]): void {
  const before = norm(x);
  for (let pass = 0; pass < 2; pass++)
    for (const other of others) {
      const along = x.reduce((sum, value, i) => sum + value * other[i]!, 0);
      other.forEach((value, i) => (x[i]! -= along * value));
    }
  const length = norm(x);
  x.forEach((value, i) => (x[i] = length > 1e-12 * before ? value / length : 0));
}

const norm = (x: Float64Array): number => Math.sqrt(x.reduce((sum, value) => sum + value * value, 0));

/** As PEFT's "orthogonal": A spans half of a random rotation of the rank, B the other half, so that B A = 0 with neither zero. */
function orthogonal({ rows, columns, rank, key = keyOf(0) }: StartContext): StartValues {
  if (rank % 2 === 1) throw new RangeError(`orthogonal: rank ${rank} is odd; give an even rank`);
  const half = rank / 2;
  const draw = (name: string, n: number): Float32Array => normalArray(key.fold(name), n);
  const turned = draw("rotation", rank * rank);
  const Q = Array.from({ length: rank }, (_, k) =>
    Float64Array.from(turned.subarray(k * rank, (k + 1) * rank)),
  );
  Q.forEach((q, k) => orthonormalize(q, Q.slice(0, k)));
  const [a, b] = [draw("A", half * columns), draw("B", half * rows)];
  const mixed = (from: Float32Array, parity: number, n: number, i: number, k: number): number => {
    let sum = 0;
    for (let h = 0; h < half; h++) sum += Q[2 * h + parity]![k]! * from[h * n + i]!;
    return sum / 10;
  };
  return {
    A: Float32Array.from({ length: rank * columns }, (_, at) => mixed(a, 0, columns, at % columns, Math.floor(at / columns))), // prettier-ignore
    B: Float32Array.from({ length: rows * rank }, (_, at) =>
      mixed(b, 1, rows, Math.floor(at / rank), at % rank),
    ),
  };
}

/** EVA (Paischer et al. 2024, arXiv 2410.07170), without moving ranks between targets: A spans the inputs; B is zero. */
function eva({ moments, rows, columns, rank }: StartContext): StartValues {
  return {
    A: leadingSingularVectors(moments!, columns, columns, rank).right,
    B: new Float32Array(rows * rank),
  };
}

/** The share of the mean diagonal that is added to the diagonal of C, so that it can be inverted; as in PEFT. */
const DAMPING = 0.01;

/** CorDA (Yang et al. 2024, arXiv 2406.05223), for instruction-previewed adaptation: the principal part of W C, times C⁻¹. */
function corda(context: StartContext): StartValues {
  const { weight, rows, columns, rank } = context;
  const C = damped(context.moments!, columns);
  const product = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++)
    for (let k = 0; k < columns; k++) {
      const w = weight[i * columns + k]!;
      for (let j = 0; j < columns; j++) product[i * columns + j]! += w * C[k * columns + j]!;
    }
  const { A, B } = principal(product, context);
  const L = choleskyOf(C, columns);
  const solved = new Float32Array(A.length);
  for (let k = 0; k < rank; k++)
    solved.set(solveSymmetric(L, columns, A.subarray(k * columns, (k + 1) * columns)), k * columns);
  return { A: solved, B };
}

function damped(moments: Float64Array, n: number): Float64Array {
  let trace = 0;
  for (let i = 0; i < n; i++) trace += moments[i * (n + 1)]!;
  return moments.map((value, at) => (at % (n + 1) === 0 ? value + (DAMPING * trace) / n : value));
}

function choleskyOf(C: Float64Array, n: number): Float64Array {
  const L = new Float64Array(n * n);
  for (let i = 0; i < n; i++)
    for (let j = 0; j <= i; j++) {
      let rest = C[i * n + j]!;
      for (let k = 0; k < j; k++) rest -= L[i * n + k]! * L[j * n + k]!;
      L[i * n + j] = i === j ? Math.sqrt(rest) : rest / L[j * n + j]!;
    }
  return L;
}

/** x with L Lᵀ x = b. */
function solveSymmetric(L: Float64Array, n: number, b: Float32Array): Float64Array {
  const x = Float64Array.from(b);
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < i; k++) x[i]! -= L[i * n + k]! * x[k]!;
    x[i]! /= L[i * (n + 1)]!;
  }
  for (let i = n - 1; i >= 0; i--) {
    for (let k = i + 1; k < n; k++) x[i]! -= L[k * n + i]! * x[k]!;
    x[i]! /= L[i * (n + 1)]!;
  }
  return x;
}

/** The γ of LoRA-GA's stable scale. */
const GAMMA = 16;

/**
 * LoRA-GA (Wang et al. 2024, arXiv 2407.05000): A the first, B the following singular vectors of the gradient, so that the first step
 * is nearest to one of full fine-tuning; both scaled by out^(1/4) / √γ.
 */
function loraGa({ gradient, rows, columns, rank }: StartContext): StartValues {
  if (2 * rank > Math.min(rows, columns))
    throw new RangeError(`lora-ga: rank ${rank} of a ${rows}×${columns} weight; give at most ${Math.floor(Math.min(rows, columns) / 2)}, half of the shorter side`); // prettier-ignore
  const { left, right } = leadingSingularVectors(gradient!, rows, columns, 2 * rank);
  const size = rows ** 0.25 / Math.sqrt(GAMMA);
  return {
    A: right.slice(0, rank * columns).map((value) => value * size),
    B: Float32Array.from({ length: rows * rank }, (_, at) => left[Math.floor(at / rank) * 2 * rank + rank + (at % rank)]! * size), // prettier-ignore
  };
}

/** LoftQ (Li et al. 2023, arXiv 2310.08659), its first iteration: the principal part of what quantization lost. */
function loftq(context: StartContext): StartValues {
  const lost = context.original!.map((value, i) => value - context.weight[i]!);
  return principal(lost, context);
}

/** The starts by name. */
export const STARTS: { readonly [N in StartName]: Start } = {
  pissa: { needs: "weight", subtracted: true, formula: pissa },
  olora: { needs: "weight", subtracted: true, formula: olora },
  orthogonal: { needs: "weight", subtracted: false, formula: orthogonal },
  eva: { needs: "moments", subtracted: false, formula: eva },
  corda: { needs: "moments", subtracted: true, formula: corda },
  "lora-ga": { needs: "gradient", subtracted: true, formula: loraGa },
  loftq: { needs: "original", subtracted: false, formula: loftq },
};

/** The names of the starts, as a list. */
export const START_NAMES: readonly StartName[] = Object.keys(STARTS) as StartName[];
