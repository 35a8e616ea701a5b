/**
 * Singular value decompositions in batches, by one-sided Jacobi rotations (Hestenes 1958). A round rotates n/2 pairs of columns at
 * once, and a sweep of n - 1 rounds meets every pair, as a tournament does. Every round is the same program, compiled once.
 */
import { arange, concat, realize, type Tensor, where } from "@tiedlora/core";
import { custom } from "../functional/gradient.ts";
import { topK } from "../functional/sort.ts";
import { checkMatrix, identity } from "./checks.ts";

/** The factors of `svd`: A = U diag(S) Vᵀ. */
export interface SVD {
  /** `[..., m, k]`: left singular vectors, the columns. */
  readonly U: Tensor;
  /** `[..., k]`: singular values, the largest first. */
  readonly S: Tensor;
  /** `[..., n, k]`: right singular vectors, the columns. */
  readonly V: Tensor;
}

/**
 * The thin singular value decomposition of A [..., m, n], with k = min(m, n). In each column of V the element of largest magnitude is
 * positive. If m ≥ n, columns of U whose singular value is 0 are 0; otherwise the same holds of V and U. Differentiable where all
 * singular values differ and none is 0. Submits the computation of A and the rotations when it is called, without waiting.
 */
export function svd(a: Tensor): SVD {
  const [m, n] = checkMatrix("svd", a);
  const tall = m >= n;
  const [rows, k] = tall ? [m, n] : [n, m];
  const all = packed(tall ? a : a.transpose()); // [.., rows + k + 1, k]
  const [left, right] = [all.narrow(-2, 0, rows), all.narrow(-2, rows, k)];
  const S = all.narrow(-2, rows + k, 1).squeeze(-2);
  const [U, V] = tall ? [left, right] : [right, left];
  const largest = topK(V.abs(), 1, { axis: -2 }).indices;
  const sign = where(V.gather(-2, largest).lt(0), -1, 1).cast(a.dtype === "f64" ? "f64" : "f32");
  return { U: U.mul(sign), S, V: V.mul(sign) };
}

/** U above V above S, for at least as many rows as columns. */
const packed: (a: Tensor) => Tensor = custom((a: Tensor) => jacobi(a), {
  // Townsend (2016), "Differentiating the singular value decomposition"
  vjp: (g, all) => {
    const [height, n] = all.shape.slice(-2) as [number, number];
    const m = height - n - 1;
    const parts = (x: Tensor): Tensor[] => x.split([m, n, 1], -2);
    const [U, V, S] = parts(all) as [Tensor, Tensor, Tensor]; // S [.., 1, n]
    const [gU, gV, gS] = parts(g) as [Tensor, Tensor, Tensor];
    const one = identity(n);
    const gaps = S.square().sub(S.square().transpose()).add(one); // s_j² - s_i²; 1 on the diagonal
    const F = one.neg().add(1).div(gaps);
    const skew = (X: Tensor, gX: Tensor): Tensor => {
      const inner = X.transpose().matmul(gX);
      return F.mul(inner.sub(inner.transpose()));
    };
    const core = skew(U, gU)
      .mul(S)
      .add(S.transpose().mul(skew(V, gV)))
      .add(one.mul(gS));
    const inside = U.matmul(core);
    const scaled = gU.div(S);
    const outside = scaled.sub(U.matmul(U.transpose().matmul(scaled)));
    return [inside.add(outside).matmul(V.transpose())];
  },
});

/** The number of sweeps after which the columns of a matrix in f32 are orthogonal: convergence is quadratic. */
const sweepsFor = (columns: number): number => 6 + Math.ceil(Math.log2(columns));

function jacobi(a: Tensor): Tensor {
  const [m, n] = a.shape.slice(-2) as [number, number];
  const outer = a.shape.slice(0, -2);
  const even = n + (n % 2); // a column of zeros is orthogonal to all
  const none = outer.map((): [number, number] => [0, 0]);
  const wide = a.pad([...none, [0, 0], [0, even - n]]);
  const V = identity(even)
    .cast(a.dtype)
    .expand([...outer, even, even]);
  let both = concat([wide, V], -2); // [.., m + even, even]
  const rounds = n === 1 ? 0 : sweepsFor(n) * (even - 1);
  for (let round = 0; round < rounds; round++) realize((both = rotated(both, m)));
  const lengths = both.narrow(-2, 0, m).square().sum(-2).sqrt(); // [.., even]
  const { values: S, indices } = topK(where(arange(even).lt(n), lengths, -1), n);
  const sorted = both.gather(-1, indices.unsqueeze(-2).expand([...outer, m + even, n]));
  const safe = where(S.eq(0), 1, S).unsqueeze(-2);
  return concat([sorted.narrow(-2, 0, m).div(safe), sorted.narrow(-2, m, n), S.unsqueeze(-2)], -2);
}

/** One round: rotates column i and column even - 1 - i of each pair, then moves all columns but the first by one place. */
function rotated(both: Tensor, m: number): Tensor {
  const half = both.shape.at(-1)! / 2;
  const x = both.narrow(-1, 0, half);
  const y = both.narrow(-1, half, half).flip(-1);
  const dot = (p: Tensor, q: Tensor): Tensor =>
    p
      .narrow(-2, 0, m)
      .mul(q.narrow(-2, 0, m))
      .sum(-2, { keepdims: true });
  const [xx, yy, xy] = [dot(x, x), dot(y, y), dot(x, y)];
  // the smaller angle that makes the two orthogonal
  const zeta = yy.sub(xx).div(xy.mul(2));
  const t = where(zeta.lt(0), -1, 1)
    .cast(xx.dtype)
    .div(zeta.abs().add(zeta.square().add(1).sqrt()));
  const isOrthogonal = xy.abs().le(xx.mul(yy).sqrt().mul(1e-9));
  const tangent = where(isOrthogonal, 0, t);
  const c = tangent.square().add(1).rsqrt();
  const s = c.mul(tangent);
  const [p, q] = [x.mul(c).sub(y.mul(s)), x.mul(s).add(y.mul(c)).flip(-1)];
  const all = concat([p, q], -1);
  const [first, last] = [all.narrow(-1, 0, 1), all.narrow(-1, 2 * half - 1, 1)];
  return concat([first, last, all.narrow(-1, 1, 2 * half - 2)], -1);
}
