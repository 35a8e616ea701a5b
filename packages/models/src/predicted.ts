/** The positions of a batch that predict a token of the loss, as far as the host knows them: only they need logits. */
import { Tensor } from "@tiedlora/core";
import { type Ids, isPredicted } from "./inputs.ts";
import { paddedSize } from "./sizes.ts";

/** The fields of a batch that decide which positions predict; see `Batch`. */
export interface Predicting {
  readonly mask?: Ids;
  readonly segments?: readonly ArrayLike<number>[];
  readonly labels?: Ids;
  readonly ignoreIndex?: number | null;
}

/** Positions of hidden states [batch, length - 1], flattened, and the weight of each in the loss. */
export interface Predicted {
  readonly index: Int32Array;
  readonly weight: Float32Array;
}

/** Above this share of all positions, picking the predicting ones does not pay. */
const MOST = 0.75;

/**
 * The positions that predict a counted token, padded with the first of them at weight 0, so that few shapes are compiled.
 * Null if the host does not know them, or if they are more than the share `MOST` of all positions.
 */
export function predictedPositions(
  { mask, segments, labels, ignoreIndex = -100 }: Predicting,
  [batch, length]: readonly number[],
): Predicted | null {
  if (mask instanceof Tensor) return null;
  const ignored = labels instanceof Tensor ? undefined : labels;
  const [index, weight]: [number[], number[]] = [[], []];
  const width = length! - 1;
  for (let row = 0; row < batch!; row++)
    for (let t = 1; t <= width; t++) {
      const counts = mask?.[row]![t] ?? 1;
      if (counts === 0 || !isPredicted(segments?.[row], t)) continue;
      if (ignored && ignored[row]![t] === ignoreIndex) continue;
      index.push(row * width + t - 1);
      weight.push(counts);
    }
  const all = batch! * width;
  const size = Math.min(all, paddedSize(index.length));
  if (size > MOST * all) return null;
  const filled = { index: new Int32Array(size).fill(index[0] ?? 0), weight: new Float32Array(size) };
  filled.index.set(index);
  filled.weight.set(weight);
  return filled;
}
