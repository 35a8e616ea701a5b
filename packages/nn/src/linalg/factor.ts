/** Factorizations of matrices in batches: Cholesky and QR. Their programs have a step for each row or column. */
import { concat, iota, type Tensor, where } from "@tiedlora/core";
import { custom } from "../functional/gradient.ts";
import { checkMatrix, checkSquare, identity } from "./checks.ts";
import { solveTriangular } from "./solve.ts";

/**
 * The lower triangle L [..., n, n] with L Lᵀ = A, for a symmetric, positive definite A, of which only the lower triangle is read.
 * Where A is not positive definite, L has NaN. Differentiable; the gradient is symmetric. Throws RangeError if A is not square.
 */
export function cholesky(a: Tensor): Tensor {
  checkSquare("cholesky", a);
  return factored(a);
}

const factored: (a: Tensor) => Tensor = custom((a: Tensor) => choleskySteps(a), {
  // Murray (2016), "Differentiation of the Cholesky decomposition": L⁻ᵀ Φ(Lᵀ L̄) L⁻¹, made symmetric
  vjp: (g, l) => {
    const inner = l.transpose().matmul(g.tril());
    const half = inner.tril().sub(inner.mul(identity(l.shape.at(-1)!)).mul(0.5));
    const left = solveTriangular(l, half, { transpose: true });
    const both = solveTriangular(l, left.transpose(), { transpose: true });
    return [both.add(both.transpose()).mul(0.5)];
  },
});

/** Each step replaces a column by that of L, and subtracts its outer product from what is right of it. */
function choleskySteps(a: Tensor): Tensor {
  const n = a.shape.at(-1)!;
  const [row, column] = [iota([n, n], 0), iota([n, n], 1)];
  let rest = a;
  for (let k = 0; k < n; k++) {
    const pivot = rest.narrow(-2, k, 1).narrow(-1, k, 1).sqrt();
    const factors = rest.narrow(-1, k, 1).div(pivot); // [.., n, 1]
    const fresh = rest.sub(factors.mul(factors.transpose()));
    rest = where(column.eq(k), factors, where(column.gt(k).and(row.ge(column)), fresh, rest));
  }
  return rest.tril();
}

/** The factors of `qr`. */
export interface QR {
  /** `[..., m, n]`: orthonormal columns. */
  readonly Q: Tensor;
  /** `[..., n, n]`: upper triangular, with a diagonal that is not negative. */
  readonly R: Tensor;
}

/**
 * A = Q R for A [..., m, n] with m ≥ n, by Householder reflections. The diagonal of R is not negative, which makes the factors unique
 * if A has full rank; differentiable then. Throws RangeError for more columns than rows.
 */
export function qr(a: Tensor): QR {
  const [m, n] = checkMatrix("qr", a);
  if (m < n)
    throw new RangeError(`qr: a matrix of ${m} rows and ${n} columns; give at most as many columns as rows`);
  const both = packed(a);
  return { Q: both.narrow(-2, 0, m), R: both.narrow(-2, m, n).triu() };
}

/** Q above R: [.., m + n, n]. */
const packed: (a: Tensor) => Tensor = custom((a: Tensor) => reflect(a), {
  // Walter and Lehmann (2010): [Q̄ + Q copy(M)] R⁻ᵀ with M = R R̄ᵀ - Q̄ᵀ Q, where copy mirrors the lower triangle
  vjp: (g, both) => {
    const [rows, n] = both.shape.slice(-2) as [number, number];
    const m = rows - n;
    const [Q, R] = [both.narrow(-2, 0, m), both.narrow(-2, m, n)];
    const [gQ, gR] = [g.narrow(-2, 0, m), g.narrow(-2, m, n)];
    const M = R.matmul(gR.transpose()).sub(gQ.transpose().matmul(Q));
    const mirrored = M.tril().add(M.tril(-1).transpose());
    const inner = gQ.add(Q.matmul(mirrored));
    return [solveTriangular(R, inner.transpose(), { side: "upper" }).transpose()];
  },
});

/** Reflects [A, I] by one column of A after another: what A becomes is R, and what the identity becomes is Qᵀ. */
function reflect(a: Tensor): Tensor {
  const [m, n] = a.shape.slice(-2) as [number, number];
  const outer = a.shape.slice(0, -2);
  const row = iota([m, 1], 0);
  let both = concat(
    [
      a,
      identity(m)
        .cast(a.dtype)
        .expand([...outer, m, m]),
    ],
    -1,
  );
  for (let k = 0; k < n; k++) {
    const x = where(row.ge(k), both.narrow(-1, k, 1), 0); // [.., m, 1]
    const norm = x.square().sum(-2, { keepdims: true }).sqrt();
    const head = x.narrow(-2, k, 1);
    const beta = where(head.lt(0), norm, norm.neg());
    const v = where(row.eq(k), head.sub(beta), x);
    const length = v.square().sum(-2, { keepdims: true });
    const along = v.mul(both).sum(-2, { keepdims: true }); // [.., 1, n + m]
    both = both.sub(v.mul(along.mul(where(length.eq(0), 0, length.reciprocal().mul(2)))));
  }
  const R = both.narrow(-1, 0, n).narrow(-2, 0, n).triu();
  const diagonal = R.mul(identity(n)).sum(-1); // [.., n]
  const sign = where(diagonal.lt(0), -1, 1).cast(a.dtype === "f64" ? "f64" : "f32");
  const Q = both.narrow(-1, n, m).narrow(-2, 0, n).transpose();
  return concat([Q.mul(sign.unsqueeze(-2)), R.mul(sign.unsqueeze(-1))], -2);
}
