/** Losses. */
import { sameShape, show } from "../shape.ts";
import { type Tensor, where } from "../tensor.ts";

/**
 * Mean of -log softmax(logits)[target] over the positions where `mask` is not 0 (all, without one).
 * logits [..., classes], targets (i32) [...], mask [...] (bool or a weight). The loss of no position at all is NaN.
 */
export function crossEntropy(
  logits: Tensor,
  targets: Tensor,
  options: { readonly mask?: Tensor } = {},
): Tensor {
  const positions = logits.shape.slice(0, -1);
  const wrong = [targets, options.mask ?? targets].find((t) => !sameShape(t.shape, positions));
  if (wrong) {
    throw new RangeError(
      `crossEntropy: ${wrong === targets ? "targets" : "mask"} ${show(wrong.shape)} for logits ${show(logits.shape)}; need ${show(positions)}`,
    );
  }
  const hit = targets.oneHot(logits.shape.at(-1)!, "bool");
  const losses = logits.logSumExp(-1).sub(where(hit, logits, 0).sum(-1));
  if (!options.mask) return losses.mean();
  const weight = options.mask.cast("f32");
  return losses.mul(weight).sum().div(weight.sum());
}

/** Mean squared difference. */
export function mse(prediction: Tensor, target: Tensor): Tensor {
  return prediction.sub(target).square().mean();
}

/**
 * Mean of -t log σ(x) - (1 - t) log(1 - σ(x)) over the logits x and targets t in 0 … 1, of one shape. Exact also where σ(x)
 * rounds to 0 or 1.
 */
export function binaryCrossEntropy(logits: Tensor, targets: Tensor): Tensor {
  if (!sameShape(logits.shape, targets.shape)) {
    throw new RangeError(
      `binaryCrossEntropy: targets ${show(targets.shape)} for logits ${show(logits.shape)}; they must be of one shape`,
    );
  }
  const no = targets.neg().add(1);
  return targets.mul(logits.neg().softplus()).add(no.mul(logits.softplus())).mean();
}
