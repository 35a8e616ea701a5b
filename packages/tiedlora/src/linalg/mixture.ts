/** Rows put together from vectors of a bank, each piece a mixture of the few that its logits favour. */
import { where, type Tensor } from "@tiedlora/core";

/** logits [rows, pieces, vectors], bank [vectors, length] -> [rows, pieces · length]; of each piece the `topK` largest count. */
export function mixtureRows(logits: Tensor, bank: Tensor, topK: number): Tensor {
  const [rows = 0, pieces = 0] = logits.shape;
  const weights = where(largest(logits, topK), logits, -1e30).softmax(-1);
  return weights.matmul(bank).reshape([rows, pieces * bank.shape[1]!]);
}

/** Where the k largest of the last axis are (more, where some are equal). */
function largest(logits: Tensor, k: number): Tensor {
  let rest = logits.detach();
  let threshold = rest.max(-1, { keepdims: true });
  for (let i = 1; i < k; i++) {
    rest = where(rest.lt(threshold), rest, -1e30);
    threshold = rest.max(-1, { keepdims: true });
  }
  return logits.detach().ge(threshold);
}

/** The greatest common divisor of two whole numbers. */
export function commonDivisor(a: number, b: number): number {
  return b === 0 ? a : commonDivisor(b, a % b);
}
