/** The matrix product of NumPy and PyTorch, also of vectors; all leading axes times one matrix are a single product. */
import { matmul, reshape } from "../build.ts";
import type { Node } from "../graph.ts";
import { product, show } from "../shape.ts";

/** [..., m, k] · [..., k, n] -> [..., m, n], batches broadcast. The axis of a vector [k], a row or a column, is dropped. */
export function matrixProduct(a: Node, b: Node): Node {
  if (a.shape.length === 0 || b.shape.length === 0)
    throw new RangeError(
      `matmul: ${show(a.shape)} · ${show(b.shape)}: a single number is no matrix; use mul`,
    );
  if (a.shape.length === 1 || b.shape.length === 1) return withVectors(a, b);
  if (b.shape.length !== 2 || a.shape.length <= 2) return matmul(a, b);
  const batch = a.shape.slice(0, -1);
  const out = matmul(reshape(a, [product(batch), a.shape.at(-1)!]), b);
  return reshape(out, [...batch, b.shape[1]!]);
}

function withVectors(a: Node, b: Node): Node {
  const [isRow, isColumn] = [a.shape.length === 1, b.shape.length === 1];
  const [k, rows] = [a.shape.at(-1), b.shape.at(isColumn ? -1 : -2)];
  const axes = `the last axis of the first (${k}) must equal the ${isColumn ? "axis" : "second-to-last"} of the second (${rows})`;
  if (k !== rows) throw new RangeError(`matmul: ${show(a.shape)} · ${show(b.shape)}: ${axes}`);
  const out = matrixProduct(isRow ? reshape(a, [1, k!]) : a, isColumn ? reshape(b, [k!, 1]) : b);
  const kept = out.shape.slice(0, -2);
  return reshape(out, [...kept, ...(isRow ? [] : [a.shape.at(-2)!]), ...(isColumn ? [] : [b.shape.at(-1)!])]);
}
