/**
 * Soft limits, as in Gemma 2, and attention whose scores have one. The attention kernel has no limit, so that attention is
 * composed of single operations, which keep all scores in memory, [batch, heads, queries, keys].
 */
import { iota, type Tensor, where } from "@tiedlora/core";
import type { AttentionOptions } from "@tiedlora/nn";

/** The score of a key that a query must not see. */
const HIDDEN = -1e30;

/** limit · tanh(x / limit), between -limit and limit; x itself if the limit is null. */
export function softcap(x: Tensor, limit: number | null): Tensor {
  return limit === null ? x : x.mul(1 / limit).tanh().mul(limit); // prettier-ignore
}

/** As `nn.scaledDotProductAttention`, with the scaled scores limited to ±`limit` before the bias is added. */
export function softcappedAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  limit: number,
  { causal, scale, bias }: AttentionOptions & { readonly scale: number },
): Tensor {
  const [batch, heads, length] = q.shape as [number, number, number];
  const [, kvHeads, keys] = k.shape as [number, number, number];
  // Query heads of one key head are neighbors: they are as many more rows of one product.
  const rows = (x: Tensor): Tensor =>
    x.reshape([batch, kvHeads, (heads / kvHeads) * length, x.shape.at(-1)!]);
  const products = rows(q).matmul(k.transpose()).reshape([batch, heads, length, keys]);
  let scores = softcap(products.mul(scale), limit);
  if (bias) scores = scores.add(bias);
  if (causal) {
    const grid = [length, keys];
    scores = where(
      iota(grid, 1)
        .sub(iota(grid, 0))
        .le(keys - length),
      scores,
      HIDDEN,
    );
  }
  return rows(scores.softmax(-1)).matmul(v).reshape(q.shape);
}
