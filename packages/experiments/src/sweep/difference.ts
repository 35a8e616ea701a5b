/** How two results of one run differ where they must not. */
import { isWhole, type Outcome, validationLoss } from "./config.ts";

/**
 * Describes the difference between two results of one run on the same kind of device, which computes the same each time; null if
 * there is none, or if the devices are of different kinds.
 */
export function differenceOf(a: Outcome, b: Outcome): string | null {
  if (a.device !== b.device) return null;
  for (const [name, lossOf] of Object.entries(LOSSES))
    if (!Object.is(lossOf(a), lossOf(b))) return `a ${name} of ${lossOf(a)} and of ${lossOf(b)}`;
  return null;
}

const LOSSES: Readonly<Record<string, (outcome: Outcome) => number>> = {
  "test loss": (outcome) => (isWhole(outcome) ? outcome.test.loss : NaN),
  "validation loss": validationLoss,
  "last training loss": ({ curve }) => curve.at(-1)?.[1] ?? NaN,
};
