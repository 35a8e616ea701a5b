/** Probabilities of tokens and of whole answers, from logits. */
import { type Tensor, where } from "@tiedlora/core";
import type { Outputs } from "../loss.ts";

/** log p of each target, [rows, positions], from logits [rows, positions, vocabulary]. */
export function logProbabilities(logits: Tensor, targets: Tensor): Tensor {
  const hit = targets.oneHot(logits.shape.at(-1)!, "bool");
  return where(hit, logits, 0).sum(-1).sub(logits.logSumExp(-1));
}

/** log p of the counted tokens of each row, summed, [rows]. */
export function rowSums(logits: Tensor, { targets, mask }: Pick<Outputs, "targets" | "mask">): Tensor {
  return logProbabilities(logits, targets).mul(mask).sum(-1);
}

/** The mean of log p over the counted tokens of each row, [rows]. */
export function rowMeans(logits: Tensor, outputs: Pick<Outputs, "targets" | "mask">): Tensor {
  return rowSums(logits, outputs).div(outputs.mask.sum(-1));
}

/** The rows of a batch whose examples have two rows each: the first rows, and the second rows. */
export function split(rows: Tensor): [first: Tensor, second: Tensor] {
  const n = rows.shape[0]! / 2;
  const both = rows.reshape([n, 2]);
  return [both.narrow(1, 0, 1).reshape([n]), both.narrow(1, 1, 1).reshape([n])];
}

/** The mean over the counted positions of values [rows, positions]. */
export function meanOver(mask: Tensor, values: Tensor): Tensor {
  return values.mul(mask).sum().div(mask.sum());
}
