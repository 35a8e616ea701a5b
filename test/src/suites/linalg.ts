/**
 * Linear algebra against plain loops in float64: values, and gradients against differences of those loops. The matrices are well
 * conditioned, so that errors in f32 stay below 1e-4 of the largest element.
 */
import { type Device, grad, type Tensor } from "@tiedlora/core";
import * as la from "@tiedlora/nn/linalg";
import { prng } from "../prng.ts";
import type { ConformanceCase, Context } from "./context.ts";

/** A matrix by rows. */
type Matrix = number[][];

const table = (rows: number, columns: number, f: (i: number, j: number) => number): Matrix =>
  Array.from({ length: rows }, (_, i) => Array.from({ length: columns }, (_unused, j) => f(i, j)));
const times = (a: Matrix, b: Matrix): Matrix =>
  table(a.length, b[0]!.length, (i, j) => a[i]!.reduce((sum, x, k) => sum + x * b[k]![j]!, 0));
const turned = (a: Matrix): Matrix => table(a[0]!.length, a.length, (i, j) => a[j]![i]!);

/** X with A X = B, by elimination with partial pivoting. */
function solved(a: Matrix, b: Matrix): Matrix {
  const rows = a.map((row, i) => [...row, ...b[i]!]);
  const n = a.length;
  for (let k = 0; k < n; k++) {
    let pivot = k;
    for (let i = k; i < n; i++) if (Math.abs(rows[i]![k]!) > Math.abs(rows[pivot]![k]!)) pivot = i;
    [rows[k], rows[pivot]] = [rows[pivot]!, rows[k]!];
    for (let i = 0; i < n; i++) {
      if (i === k) continue;
      const factor = rows[i]![k]! / rows[k]![k]!;
      rows[i] = rows[i]!.map((x, j) => x - factor * rows[k]![j]!);
    }
  }
  return rows.map((row, i) => row.slice(n).map((x) => x / row[i]!));
}

function choleskyOf(a: Matrix): Matrix {
  const l = a.map((row) => row.map(() => 0));
  for (let i = 0; i < a.length; i++)
    for (let j = 0; j <= i; j++) {
      const rest = l[j]!.slice(0, j).reduce((sum, x, k) => sum - x * l[i]![k]!, a[i]![j]!);
      l[i]![j] = i === j ? Math.sqrt(rest) : rest / l[j]![j]!;
    }
  return l;
}

/** Q above R, by the Cholesky factor of Aᵀ A. */
function qrOf(a: Matrix): Matrix {
  const r = turned(choleskyOf(times(turned(a), a)));
  return [...turned(solved(turned(r), turned(a))), ...r];
}

interface Problem {
  readonly name: string;
  /** Shapes of the inputs, for a size n. */
  readonly shapes: (n: number) => (readonly [number, number])[];
  readonly onDevice: (...inputs: Tensor[]) => Tensor;
  readonly exact: (...inputs: Matrix[]) => Matrix;
  /** Makes a random matrix fit, e.g. well conditioned. */
  readonly fit: (x: Matrix, input: number) => Matrix;
}

const square = (n: number): [number, number] => [n, n];
const plusIdentity = (x: Matrix, by: number): Matrix =>
  x.map((row, i) => row.map((v, j) => v + (i === j ? by : 0)));
const lowerOf = (x: Matrix): Matrix => x.map((row, i) => row.map((v, j) => (j <= i ? v : 0)));
const symmetric = (x: Tensor): Tensor => x.matmul(x.transpose());
const gram = (x: Matrix): Matrix => times(x, turned(x));

const triangular = (side: "lower" | "upper", transpose: boolean): Problem => ({
  name: `solveTriangular, ${side}${transpose ? ", transposed" : ""}`,
  shapes: (n) => [square(n), [n, 2]],
  onDevice: (t, b) => la.solveTriangular(t, b, { side, transpose }),
  exact: (t, b) => {
    const one = side === "lower" ? lowerOf(t) : turned(lowerOf(turned(t)));
    return solved(transpose ? turned(one) : one, b);
  },
  fit: (x, input) => (input === 0 ? plusIdentity(x, 2) : x),
});

const PROBLEMS: readonly Problem[] = [
  {
    name: "solve",
    shapes: (n) => [square(n), [n, 3]],
    onDevice: (a, b) => la.solve(a, b),
    exact: (a, b) => solved(a, b),
    // the largest elements are beside the diagonal: without pivoting, digits would be lost
    fit: (x, input) => (input === 0 ? turned(plusIdentity(x, 0)).map((row, i, all) => row.map((v, j) => v + (j === (i + 1) % all.length ? 2 * all.length : 0))) : x), // prettier-ignore
  },
  {
    name: "inverse",
    shapes: (n) => [square(n)],
    onDevice: (a) => la.inverse(a),
    exact: (a) =>
      solved(
        a,
        table(a.length, a.length, (i, j) => Number(i === j)),
      ),
    fit: (x) => plusIdentity(x, 2 * x.length),
  },
  triangular("lower", false),
  triangular("lower", true),
  triangular("upper", false),
  triangular("upper", true),
  {
    name: "cholesky",
    shapes: (n) => [square(n)],
    onDevice: (x) => la.cholesky(symmetric(x)),
    exact: (x) => choleskyOf(gram(x)),
    fit: (x) => plusIdentity(x, 2),
  },
  {
    name: "qr",
    shapes: (n) => [[n + 2, n]],
    onDevice: (a) => {
      const { Q, R } = la.qr(a);
      return Q.mul(2)
        .transpose()
        .matmul(Q)
        .add(R)
        .add(Q.narrow(-2, 0, R.shape.at(-1)!));
    },
    exact: (a) => {
      const n = a[0]!.length;
      const both = qrOf(a);
      const [Q, R] = [both.slice(0, -n), both.slice(-n)];
      const QQ = times(turned(Q), Q);
      return table(n, n, (i, j) => 2 * QQ[i]![j]! + R[i]![j]! + Q[i]![j]!);
    },
    fit: (x) => plusIdentity(x, 3),
  },
];

const TOLERANCE = 1e-4;
const H = 1e-5;

function compare(what: string, found: ArrayLike<number>, wanted: readonly number[]): void {
  const scale = Math.max(1, ...wanted.map(Math.abs));
  for (const [i, value] of wanted.entries())
    if (!(Math.abs(found[i]! - value) <= TOLERANCE * scale))
      throw new Error(`${what}: element ${i} is ${found[i]} instead of ${value}`);
}

/** A batch of two problems of size n: values, and the gradients of a weighted sum. */
async function check(device: Device, problem: Problem, n: number): Promise<void> {
  const draw = prng(n + problem.name.length);
  const batches = [0, 1].map(
    () =>
    problem.shapes(n).map(([rows, columns], i) => problem.fit(table(rows, columns, () => Math.fround(2 * draw() - 1)), i)), // prettier-ignore
  );
  const inputs = problem.shapes(n).map((shape, i) => {
    const all = Float32Array.from(batches.flatMap((batch) => batch[i]!.flat()));
    return device.tensor(all, { shape: [2, ...shape] });
  });
  const out = problem.onDevice(...inputs);
  const exact = batches.map((batch) => problem.exact(...batch));
  const name = `${problem.name} of ${n}`;
  compare(name, await out.data(), exact.flat(2));
  const weights = exact.flat(2).map(() => Math.round(8 * draw() - 4) / 4);
  const loss = out.mul(device.tensor(weights, { shape: out.shape })).sum();
  const found = await Promise.all(grad(loss, inputs).map((g) => g.data()));
  const half = weights.length / 2;
  for (const [i, g] of found.entries()) {
    const wanted = batches.flatMap((batch, b) => {
      const at = (r: number, c: number, by: number): number => {
        const moved = batch.map((x, k) => (k === i ? x.map((row, p) => row.map((v, q) => v + (p === r && q === c ? by : 0))) : x)); // prettier-ignore
        return problem.exact(...moved).flat().reduce((sum, v, k) => sum + v * weights[b * half + k]!, 0); // prettier-ignore
      };
      return batch[i]!.flatMap((row, r) => row.map((_, c) => (at(r, c, H) - at(r, c, -H)) / (2 * H)));
    });
    compare(`${name}: gradient of input ${i}`, g, wanted);
  }
}

/** U diag(S) Vᵀ is A, U and V are orthonormal, S falls; and the gradient of Σ w S is U diag(w) Vᵀ. */
async function checkSvd(device: Device, m: number, n: number): Promise<void> {
  const draw = prng(m * 10 + n);
  const a = device.tensor(Float32Array.from({ length: 2 * m * n }, () => 2 * draw() - 1), { shape: [2, m, n] }); // prettier-ignore
  const { U, S, V } = la.svd(a);
  const k = Math.min(m, n);
  const name = `svd of ${m}×${n}`;
  const scaled = U.mul(S.unsqueeze(-2)).matmul(V.transpose());
  compare(name, await scaled.data(), Array.from(await a.data()));
  const one = [0, 1].flatMap(() => table(k, k, (i, j) => Number(i === j)).flat());
  compare(`${name}: Uᵀ U`, await U.transpose().matmul(U).data(), one);
  compare(`${name}: Vᵀ V`, await V.transpose().matmul(V).data(), one);
  const values = await S.data();
  values.forEach((s, i) => {
    if (i % k > 0 && s > values[i - 1]!) throw new Error(`${name}: ${s} comes after ${values[i - 1]}`);
  });
  const w = device.tensor(Float32Array.from({ length: k }, (_, i) => i + 1));
  const [g] = grad(S.mul(w).sum(), [a]);
  compare(`${name}: gradient of S`, await g!.data(), Array.from(await U.mul(w).matmul(V.transpose()).data())); // prettier-ignore
  // a projection, which does not depend on signs: Σ (u₁ v₁ᵀ)² = 1 always, so its gradient is zero
  const first = U.narrow(-1, 0, 1).matmul(V.narrow(-1, 0, 1).transpose());
  const [flat] = grad(first.square().sum(), [a]);
  compare(`${name}: gradient of a norm that is 1`, await flat!.data(), Array.from({ length: 2 * m * n }, () => 0)); // prettier-ignore
}

export function linalgCases(context: Context): ConformanceCase[] {
  return [
    ...PROBLEMS.map((problem) => ({
      name: `linear algebra: ${problem.name}`,
      run: async (): Promise<void> => {
        await check(await context.device(), problem, 5);
      },
    })),
    {
      name: "linear algebra: svd",
      run: async () => checkSvd(await context.device(), 4, 3),
    },
  ];
}
