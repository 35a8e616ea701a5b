/**
 * DoRA (Liu et al. 2024, arXiv 2402.09353) trains direction and length of the weight's rows separately:
 * W' = m ⊙ (W + s B A) / ‖W + s B A‖, with the norm of each row and, as in section 4.3, no gradient through the norm.
 */
import { init } from "../init.ts";
import { defineMethod, scaled, type CommonOptions, type PreparedMethod } from "../method.ts";
import type { Named } from "./recipe.ts";

export function dora(options: CommonOptions, named: Named): PreparedMethod<"A" | "B" | "m"> {
  return defineMethod({
    ...options,
    ...named,
    factors: {
      A: { shape: ["rank", "in"], init: init.normal() },
      B: { shape: ["out", "rank"], init: init.zeros() },
      m: { shape: ["out"], init: init.fromWeight() },
    },
    product: ["A", "B"],
    forward: ({ A, B, m }, { x, y, scale, weight, bias, shared }) => {
      const rows = scaled(B, scale);
      const norms = weight.add(rows.matmul(A)).square().sum(1).sqrt().detach();
      const gain = m.div(norms);
      const update = shared(() => x.matmul(A.transpose())).matmul(rows.transpose());
      const linear = bias === null ? y : y.sub(bias);
      return y.add(linear.mul(gain.sub(1))).add(update.mul(gain));
    },
    prepare: ({ weight, dims }) => Promise.resolve({ m: rowNorms(weight, dims.in) }),
  });
}

/** The Euclidean norm of each row, summed in float64. */
function rowNorms(weight: Float32Array, columns: number): Float32Array {
  return Float32Array.from({ length: weight.length / columns }, (_, row) => {
    const values = weight.subarray(row * columns, (row + 1) * columns);
    return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
  });
}
