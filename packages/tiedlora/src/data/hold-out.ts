/** Divides examples into those that are trained on and those that are held out. */
import { key, permutation } from "@tiedlora/core";

/**
 * The examples without those that are held out, and these, both in their order. `share`: below 1 a share of all, from 1 on a number.
 * Which they are depends on the seed and on the number of examples alone. Throws RangeError unless both parts have an example.
 */
export function holdOut<T>(examples: readonly T[], share: number, seed: number): [train: T[], valid: T[]] {
  const count = share < 1 ? Math.max(1, Math.round(share * examples.length)) : share;
  if (!(count >= 1 && count < examples.length))
    throw new RangeError(
      `${count} of ${examples.length} examples to hold out; expected at least one, and one that is left to train on`,
    );
  const order = permutation(key(seed).fold("held out"), examples.length);
  const held = new Set(order.subarray(0, count));
  return [examples.filter((_, i) => !held.has(i)), examples.filter((_, i) => held.has(i))];
}
