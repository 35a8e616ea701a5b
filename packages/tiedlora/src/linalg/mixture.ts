/** Rows made of pieces, each of which is a mixture of the few vectors of a bank with the largest logits. */
import { where, type Tensor } from "@tiedlora/core";

/**
 * Mixes vectors: logits [rows, pieces, vectors], bank [vectors, length] -> [rows, pieces · length]. In each piece only the `topK`
 * largest logits count.
 */
export function mixtureRows(logits: Tensor, bank: Tensor, topK: number): Tensor {
  const [rows = 0, pieces = 0] = logits.shape;
  const weights = where(largest(logits, topK), logits, -1e30).softmax(-1);
  return weights.matmul(bank).reshape([rows, pieces * bank.shape[1]!]);
}

/** A mask of the k largest elements along the last axis; of more than k, if some are equal. */
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
