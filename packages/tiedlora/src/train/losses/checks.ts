/** Checks of the numbers that losses are given. */
import { describeArgument } from "@tiedlora/core/arguments";

/** Throws RangeError unless `value` is a finite number above 0. */
export function checkAbove(what: string, value: number): void {
  if (typeof value !== "number" || !(value > 0 && value < Infinity))
    throw new RangeError(`${what} ${describeArgument(value)} given; expected a finite number above 0`);
}

/** Throws RangeError unless `value` is at least 0 and below 1. */
export function checkShare(what: string, value: number): void {
  if (typeof value !== "number" || !(value >= 0 && value < 1))
    throw new RangeError(`${what} ${describeArgument(value)} given; expected at least 0 and below 1`);
}

/** Throws RangeError unless `value` is finite and at least 0. */
export function checkWeight(what: string, value: number): void {
  if (typeof value !== "number" || !(value >= 0 && value < Infinity))
    throw new RangeError(`${what} ${describeArgument(value)} given; expected a finite number of at least 0`);
}
