/**
 * OFT (Qiu et al. 2023, arXiv 2306.07280): z = W R x, where R is orthogonal and block-diagonal. Each block is the Cayley transform
 * (I + K)(I - K)⁻¹ of a skew matrix K, which starts at zero. The inverse is its Neumann series with five terms, PEFT's default
 * (arXiv 2506.19847): R is orthogonal as long as K is small. The rank has no meaning here.
 */
import { iota, type Tensor } from "@tiedlora/core";
import { checkWhole } from "@tiedlora/core/arguments";
import { init } from "../init.ts";
import { commonDivisor } from "../linalg/mixture.ts";
import { defineMethod, type CommonOptions, type Dims, type PlainMethod } from "../method.ts";
import type { Named } from "./recipe.ts";

export interface OftOptions extends CommonOptions {
  /** The size of the blocks, or the largest divisor that it has in common with a module's input. Default: 32. */
  readonly block?: number;
}

export function oft({ block = 32, ...common }: OftOptions, named: Named): PlainMethod<"K"> {
  checkWhole("oft: block", block, 2);
  const size = (d: Dims): number => commonDivisor(d.in, block);
  return defineMethod({
    ...common,
    ...named,
    factors: {
      K: { shape: [(d) => d.in / size(d), (d) => (size(d) * (size(d) - 1)) / 2], init: init.zeros() },
    },
    forward: ({ K }, { x, y, weight, shared, place: { dims } }) => {
      const turned = shared(() => {
        const [n, b] = [dims.in / size(dims), size(dims)];
        const rows = x.reshape([-1, n, 1, b]);
        return rows
          .matmul(turn(skew(K, b)))
          .reshape(x.shape)
          .sub(x);
      });
      return y.add(turned.matmul(weight.transpose()));
    },
  });
}

/** Skew matrices [n, b, b] from the elements above their diagonals, [n, b (b - 1)/2], row by row. */
function skew(upper: Tensor, b: number): Tensor {
  const [row, column] = [iota([b, b], 0), iota([b, b], 1)];
  const [low, high] = [row.minimum(column), row.maximum(column)];
  const start = low
    .mul(low.neg().add(2 * b - 1))
    .cast("f32")
    .mul(0.5)
    .cast("i32"); // of row `low`: low (2b - low - 1)/2
  const index = start.add(high).sub(low).sub(1).maximum(0);
  const values = upper
    .transpose()
    .take(index.reshape([b * b]))
    .transpose()
    .reshape([-1, b, b]);
  return values.mul(row.lt(column).cast("f32").sub(row.gt(column).cast("f32")));
}

/** I + 2K + 2K² + 2K³ + K⁴: the Cayley transform of K by its Neumann series. */
function turn(K: Tensor): Tensor {
  const b = K.shape[2]!;
  const square = K.matmul(K);
  const sum = K.add(square).add(square.matmul(K)).mul(2).add(square.matmul(square));
  return sum.add(
    iota([b, b], 0)
      .eq(iota([b, b], 1))
      .cast("f32"),
  );
}
