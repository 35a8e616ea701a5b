/** Loss functions. */
import { sameShape, type Tensor, where } from "@tiedlora/core";
import {
  build,
  checkFunction,
  checkOptions,
  checkTensors,
  checkWhole,
  isOp,
  show,
} from "@tiedlora/core/extend";

/** Which positions count in a cross-entropy, and with what weight. */
export interface CrossEntropyOptions {
  /** The weight of each position, numbers or bool, in the targets' shape. Where it is 0, the target is not used. Default: 1. */
  readonly mask?: Tensor;
  /**
   * Positions with this target count neither in the sum nor in the mean. Default -100, as in PyTorch. With null every position
   * counts, so that the device need not count positions; nor does it if the targets are host data without this value.
   */
  readonly ignoreIndex?: number | null;
}

/**
 * Mean of -log softmax(logits)[target], weighted by `mask`, over the positions whose target is not `ignoreIndex`.
 * logits [..., classes], targets (i32 or u32) [...], mask [...] -> [].
 *
 * Any other target outside 0 … classes-1 at a position of nonzero weight makes the loss and its gradient NaN, since a device
 * cannot throw. If no position counts, the loss is NaN (a mean over nothing), as in PyTorch, with a gradient of 0.
 * Throws if types or shapes do not fit.
 */
export function crossEntropy(logits: Tensor, targets: Tensor, options: CrossEntropyOptions = {}): Tensor {
  const what = "crossEntropy";
  const { mask } = checkOptions(what, options, "{ ignoreIndex: -100 }", ["mask", "ignoreIndex"]);
  checkTensors(what, [logits, targets, ...(mask === undefined ? [] : [mask])]);
  checkTypes(what, logits, targets);
  checkPositions(what, logits, targets, mask);
  const ignoreIndex = ignored(what, targets, options.ignoreIndex);
  const weight = weightsOf(targets, mask, ignoreIndex);
  const losses = weightedLosses(logits, targets, weight);
  return weight === null ? losses.mean() : losses.sum().div(weight.sum());
}

/** Settings of a cross-entropy that is computed in chunks. */
export interface ChunkedCrossEntropyOptions extends CrossEntropyOptions {
  /** The largest chunk: the number of positions along the last axis of the targets whose logits are in memory at once. */
  readonly rows: number;
}

/**
 * `crossEntropy(head(hidden), targets, options)`, up to rounding, without the logits of all positions in memory at once: `head`
 * is applied to chunks of at most `rows` positions, and the gradient of a chunk is computed right after its loss. Use it for
 * large vocabularies, where the logits take most of a step's memory.
 * hidden [..., n, width], head: [..., m, width] -> [..., m, classes], targets (i32 or u32) [..., n], mask [..., n] -> [].
 */
export function chunkedCrossEntropy(
  hidden: Tensor,
  head: (hidden: Tensor) => Tensor,
  targets: Tensor,
  options: ChunkedCrossEntropyOptions,
): Tensor {
  const what = "chunkedCrossEntropy";
  const { mask, rows } = checkOptions(what, options, "{ rows: 256 }", ["mask", "ignoreIndex", "rows"]);
  checkTensors(what, [hidden, targets, ...(mask === undefined ? [] : [mask])]);
  checkWhole(`${what}: rows`, rows, 1);
  checkFunction(`${what}: head`, head, "one from hidden states to logits");
  const positions = hidden.shape.slice(0, -1);
  const fits = ({ shape }: Tensor): boolean => sameShape(shape, positions);
  if (hidden.rank < 2 || !fits(targets) || (mask && !fits(mask)))
    throw new RangeError(
      `${what}: hidden ${show(hidden.shape)}, targets ${show(targets.shape)}${mask ? `, mask ${show(mask.shape)}` : ""}; ` +
        `need hidden [..., n, width], and targets and mask [..., n]`,
    );
  const weight = weightsOf(targets, mask, ignored(what, targets, options.ignoreIndex));
  const n = positions.at(-1)!;
  const chunks = Math.max(1, Math.ceil(n / rows));
  const size = Math.ceil(n / chunks);
  const sums = Array.from({ length: chunks }, (_, i) => {
    const start = Math.min(i * size, n);
    const length = Math.min(size, n - start);
    const logits = head(hidden.narrow(-2, start, length));
    const expected = targets.narrow(-1, start, length);
    checkTypes(what, logits, expected);
    checkPositions(what, logits, expected);
    return weightedLosses(logits, expected, weight && weight.narrow(-1, start, length)).sum();
  });
  const sum = sums.reduce((a, b) => a.add(b));
  return weight === null ? sum.div(targets.size) : sum.div(weight.sum());
}

/** The weight of each position in the mean, f32; null if every weight is 1. */
function weightsOf(targets: Tensor, mask: Tensor | undefined, ignoreIndex: number | null): Tensor | null {
  const kept = ignoreIndex === null ? null : targets.cast("i32").ne(ignoreIndex);
  const given = mask?.cast("f32");
  if (kept && given) return where(kept, given, 0);
  return given ?? kept?.cast("f32") ?? null;
}

/** -log softmax(logits)[target] · weight at each position: 0 where the weight is 0, otherwise NaN where the target is no class. */
function weightedLosses(logits: Tensor, targets: Tensor, weight: Tensor | null): Tensor {
  const classes = logits.shape.at(-1)!;
  const hit = targets.oneHot(classes, "bool");
  const losses = logits.logSumExp(-1).sub(where(hit, logits, 0).sum(-1));
  const index = targets.cast("i32");
  const stray = index.lt(0).or(index.ge(classes));
  // NaN multiplies the loss, so that the gradient is NaN as well.
  if (weight === null) return losses.mul(where(stray, Number.NaN, 1));
  const counts = weight.ne(0);
  const factor = where(stray.and(counts), Number.NaN, weight);
  return where(counts, losses.mul(factor), 0);
}

function checkTypes(what: string, logits: Tensor, targets: Tensor): void {
  build.needFloat(`${what}: logits`, logits.node);
  if (targets.dtype !== "i32" && targets.dtype !== "u32")
    throw new TypeError(`${what}: the targets are ${targets.dtype}, but i32 is needed; use .cast("i32")`);
}

/** The index to ignore; null if there is none, or if the targets are host data that do not contain it. */
function ignored(what: string, { node }: Tensor, index: number | null = -100): number | null {
  if (index === null) return null;
  checkWhole(`${what}: ignoreIndex`, index, -(2 ** 31), 2 ** 32 - 1);
  if (!isOp(node, "data")) return index;
  const { values } = node.attrs;
  return values.includes(values instanceof Uint32Array ? index >>> 0 : index) ? index : null;
}

function checkPositions(what: string, logits: Tensor, targets: Tensor, mask?: Tensor): void {
  const positions = logits.shape.slice(0, -1);
  const fits = ({ shape }: Tensor): boolean => logits.rank > 0 && sameShape(shape, positions);
  if (fits(targets) && (!mask || fits(mask))) return;
  throw new RangeError(
    `${what}: logits ${show(logits.shape)}, targets ${show(targets.shape)}${mask ? `, mask ${show(mask.shape)}` : ""}; ` +
      `need logits [..., classes], and targets and mask [...]`,
  );
}

/** Mean squared difference -> []. Shapes broadcast, as in PyTorch; the mean is over the broadcast shape. Throws unless float. */
export function mse(prediction: Tensor, target: Tensor): Tensor {
  const difference = checkTensors("mse", [prediction, target]) && prediction.sub(target);
  build.needFloat("mse", difference.node);
  return difference.square().mean();
}

/**
 * Mean of -t log σ(x) - (1 - t) log(1 - σ(x)) over the logits x and targets t in 0 … 1, both float and of the same shape -> [].
 * Accurate also where σ(x) rounds to 0 or 1. Throws if types or shapes do not fit.
 */
export function binaryCrossEntropy(logits: Tensor, targets: Tensor): Tensor {
  checkTensors("binaryCrossEntropy", [logits, targets]);
  for (const { node } of [logits, targets]) build.needFloat("binaryCrossEntropy", node);
  if (!sameShape(logits.shape, targets.shape)) {
    throw new RangeError(
      `binaryCrossEntropy: targets ${show(targets.shape)} for logits ${show(logits.shape)}; they must be of one shape`,
    );
  }
  const no = targets.neg().add(1);
  return targets.mul(logits.neg().softplus()).add(no.mul(logits.softplus())).mean();
}
