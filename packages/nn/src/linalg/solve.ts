/**
 * Systems of linear equations, in batches. `solve` eliminates with partial pivoting, in n steps of a few kernels; `solveTriangular`
 * inverts by blocks of 1, 2, 4, … rows, in log₂ n matrix products.
 */
import { concat, iota, type Tensor, where } from "@tiedlora/core";
import { checkName, checkOptions, refuse } from "@tiedlora/core/extend";
import { custom } from "../functional/gradient.ts";
import { checkSquare, checkSystem, identity } from "./checks.ts";

/**
 * X with A X = B, for A [..., n, n] and B [..., n, m]; batch axes broadcast. Gauss–Jordan elimination with partial pivoting. Where A
 * is singular, X is not finite. Differentiable with respect to both, by solving with Aᵀ. The program has a step for each row of A:
 * meant for n up to a few hundred. Throws RangeError if the shapes do not fit.
 */
export function solve(a: Tensor, b: Tensor): Tensor {
  const [A, B] = checkSystem("solve", a, b);
  return solved(A, B);
}

const solved: (a: Tensor, b: Tensor) => Tensor = custom((a: Tensor, b: Tensor) => eliminate(a, b), {
  vjp: (g, x, a) => {
    const toB = solved(a.transpose(), g);
    return [toB.matmul(x.transpose()).neg(), toB];
  },
});

/** The inverse of A [..., n, n]; see {@link solve}, which is more exact where a product with the inverse is wanted. */
export function inverse(a: Tensor): Tensor {
  return solve(a, identity(checkSquare("inverse", a)).cast(a.dtype));
}

function eliminate(a: Tensor, b: Tensor): Tensor {
  const n = a.shape.at(-1)!;
  let rows = concat([a, b], -1); // [.., n, n + m]
  const column = [...a.shape.slice(0, -2), n];
  const at = iota([n], 0);
  for (let k = 0; k < n; k++) {
    const own = rows.narrow(-2, k, 1);
    const head = rows.narrow(-1, k, 1).reshape(column);
    const pivot = where(at.ge(k), head.abs(), -1).argmax(-1, { keepdims: true }); // [.., 1]
    const isPivot = at.eq(pivot).unsqueeze(-1); // [.., n, 1]
    const chosen = where(isPivot, rows, 0).sum(-2, { keepdims: true });
    const scaled = chosen.div(chosen.narrow(-1, k, 1));
    const swapped = where(isPivot, own, rows);
    const cleared = swapped.sub(swapped.narrow(-1, k, 1).mul(scaled));
    rows = where(at.eq(k).unsqueeze(-1), scaled, cleared);
  }
  return rows.narrow(-1, n, b.shape.at(-1)!);
}

/** Which triangle a matrix has, and whether it is transposed. */
export interface TriangularOptions {
  /** "lower" (default) or "upper"; the other triangle is not read. */
  readonly side?: "lower" | "upper";
  /** Whether Tᵀ X = B is solved instead of T X = B. Default: false. */
  readonly transpose?: boolean;
}

/**
 * X with T X = B, for a triangular T [..., n, n] and B [..., n, m]; batch axes broadcast. Where the diagonal has a zero, X is not
 * finite. Differentiable with respect to both; the gradient of T is triangular. Throws RangeError if the shapes do not fit.
 */
export function solveTriangular(t: Tensor, b: Tensor, options: TriangularOptions = {}): Tensor {
  const { side = "lower", transpose = false } = checkOptions(
    "solveTriangular",
    options,
    '{ side: "upper" }',
    ["side", "transpose"],
  );
  checkName("solveTriangular: side", side, ["lower", "upper"]);
  if (typeof transpose !== "boolean")
    refuse("solveTriangular: transpose", transpose, "boolean", "true or false");
  const [T, B] = checkSystem("solveTriangular", t, b);
  // an upper triangle is the transpose of a lower one
  const lower = side === "lower" ? T.tril() : T.triu().transpose();
  return transpose === (side === "lower") ? solvedTransposed(lower, B) : solvedLower(lower, B);
}

/** The gradient of `lower` comes back in both triangles' places; `tril` and `triu` above keep those that count. */
const solvedLower: (t: Tensor, b: Tensor) => Tensor = custom(
  (t: Tensor, b: Tensor) => inverseLower(t).matmul(b),
  {
    vjp: (g, x, t) => {
      const toB = solvedTransposed(t, g);
      return [toB.matmul(x.transpose()).neg(), toB];
    },
  },
);

const solvedTransposed: (t: Tensor, b: Tensor) => Tensor = custom(
  (t: Tensor, b: Tensor) => inverseLower(t).transpose().matmul(b),
  {
    vjp: (g, x, t) => {
      const toB = solvedLower(t, g);
      return [x.matmul(toB.transpose()).neg(), toB];
    },
  },
);

/** The inverse of a lower triangle: [[P, 0], [C, Q]]⁻¹ = [[P⁻¹, 0], [-Q⁻¹ C P⁻¹, Q⁻¹]], for all blocks of one size at once. */
function inverseLower(t: Tensor): Tensor {
  const n = t.shape.at(-1)!;
  const size = 2 ** Math.ceil(Math.log2(n));
  const outer = t.shape.slice(0, -2);
  const none = outer.map((): [number, number] => [0, 0]);
  // beyond n, the identity
  const isNew = iota([size], 0)
    .ge(n)
    .unsqueeze(-1)
    .and(iota([size, size], 0).eq(iota([size, size], 1)));
  const whole = where(isNew, 1, t.pad([...none, [0, size - n], [0, size - n]]));
  let blocks = diagonalBlocks(whole, 1).reciprocal(); // [.., size, 1, 1]
  for (let half = 1; half < size; half *= 2) {
    const pairs = blocks.reshape([...outer, size / (2 * half), 2, half, half]);
    const [P, Q] = pairs.split(1, -3).map((one) => one.squeeze(-3)) as [Tensor, Tensor];
    const C = diagonalBlocks(whole, 2 * half)
      .narrow(-2, half, half)
      .narrow(-1, 0, half);
    const corner = Q.matmul(C).matmul(P).neg();
    const front = [...none, [0, 0] as const];
    blocks = P.pad([...front, [0, half], [0, half]])
      .add(corner.pad([...front, [half, 0], [0, half]]))
      .add(Q.pad([...front, [half, 0], [half, 0]]));
  }
  return blocks.squeeze(-3).narrow(-2, 0, n).narrow(-1, 0, n);
}

/** The blocks of `size` rows and columns on the diagonal: [.., n, n] -> [.., n / size, size, size]. */
function diagonalBlocks(x: Tensor, size: number): Tensor {
  const outer = x.shape.slice(0, -2);
  const count = x.shape.at(-1)! / size;
  const r = outer.length;
  const apart = x.reshape([...outer, count, size, count, size]);
  const order = [...outer.map((_, i) => i), r + 1, r + 3, r, r + 2];
  const flat = apart.permute(order).reshape([...outer, size, size, count * count]);
  const taken = flat.slice(...outer.map(() => null), null, null, [0, count * count, count + 1]);
  return taken.permute([...outer.map((_, i) => i), r + 2, r, r + 1]);
}
