/** Learning rates over steps. Steps count from 0; a warm-up rises linearly and reaches the full rate after `warmup` steps. */
import { checkNumber, checkOptions } from "@tiedlora/core/extend";

/** The learning rate of a step. */
export type Schedule = (step: number) => number;

interface Warmup {
  /** Steps over which the rate rises from lr/warmup to lr. Default 0. */
  readonly warmup?: number;
}
interface Decay extends Warmup {
  /** The step at which the rate reaches its end. */
  readonly steps: number;
  /** The rate at the end and after it. Default 0. */
  readonly end?: number;
}

/** A warm-up, then `lr` down to `end` as the part of it that is `left` when the decay has gone to 0 … 1. */
function schedule(what: string, lr: number, options: Decay, left: (progress: number) => number): Schedule {
  const {
    warmup = 0,
    steps,
    end = 0,
  } = checkOptions(what, options, "{ steps: 1000 }", ["warmup", "steps", "end"]);
  for (const [name, value] of Object.entries({ lr, warmup, steps, end }))
    checkNumber(`${what}: ${name}`, value);
  if (!(lr >= 0 && warmup >= 0 && end >= 0 && steps >= warmup)) {
    throw new RangeError(
      `${what}: lr ${lr}, warmup ${warmup}, steps ${steps}, end ${end}; none may be negative, and steps >= warmup`,
    );
  }
  return (step) => {
    if (step < warmup) return (lr * (step + 1)) / warmup;
    return end + (lr - end) * left(Math.min(1, (step - warmup) / Math.max(1, steps - warmup)));
  };
}

/** `lr` throughout. */
export function constant(lr: number, options: Warmup = {}): Schedule {
  checkOptions("constant", options, "{ warmup: 100 }", ["warmup"]);
  return schedule("constant", lr, { ...options, steps: Infinity }, () => 1);
}

/** Straight from `lr` to `end`. */
export function linear(lr: number, options: Decay): Schedule {
  return schedule("linear", lr, options, (progress) => 1 - progress);
}

/** Half a cosine from `lr` to `end` (Loshchilov and Hutter 2017, without restarts). */
export function cosine(lr: number, options: Decay): Schedule {
  return schedule("cosine", lr, options, (progress) => (1 + Math.cos(Math.PI * progress)) / 2);
}

/** The names of the schedules. */
export type ScheduleName = "constant" | "linear" | "cosine";

/** Each schedule by its name, from a rate, the steps of its warm-up, and all steps; a constant one takes no notice of those. */
export const SCHEDULES: {
  readonly [S in ScheduleName]: (
    lr: number,
    options: { readonly warmup: number; readonly steps: number },
  ) => Schedule;
} = { constant: (lr, { warmup }) => constant(lr, { warmup }), linear, cosine };

/** The names of the schedules, as a list. */
export const SCHEDULE_NAMES: readonly ScheduleName[] = Object.keys(SCHEDULES) as ScheduleName[];
