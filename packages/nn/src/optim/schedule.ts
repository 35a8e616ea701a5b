/** Learning-rate schedules. Steps count from 0; a warm-up rises linearly to the full rate within its `warmup` steps. */
import { checkNumber, checkOptions } from "@tiedlora/core/extend";

/** Returns the learning rate of a step; steps count from 0. */
export type Schedule = (step: number) => number;

interface Warmup {
  /** The number of steps in which the rate rises from lr/warmup to lr. Default 0. */
  readonly warmup?: number;
}
interface Decay extends Warmup {
  /** The step at which the rate reaches `end`; at least `warmup`. */
  readonly steps: number;
  /** The rate at step `steps` and after it. Default 0. */
  readonly end?: number;
}

/** A warm-up, then end + (lr - end) · left(progress), where progress rises from 0 to 1 between steps `warmup` and `steps`. */
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
      `${what}: lr ${lr}, warmup ${warmup}, steps ${steps}, end ${end}; none may be negative, and steps must be at least warmup`,
    );
  }
  return (step) => {
    if (step < warmup) return (lr * (step + 1)) / warmup;
    return end + (lr - end) * left(Math.min(1, (step - warmup) / Math.max(1, steps - warmup)));
  };
}

/** The rate `lr` at every step after the warm-up. */
export function constant(lr: number, options: Warmup = {}): Schedule {
  checkOptions("constant", options, "{ warmup: 100 }", ["warmup"]);
  return schedule("constant", lr, { ...options, steps: Infinity }, () => 1);
}

/** Linear decay from `lr` to `end` after the warm-up. */
export function linear(lr: number, options: Decay): Schedule {
  return schedule("linear", lr, options, (progress) => 1 - progress);
}

/** Decay from `lr` to `end` along half a cosine after the warm-up (Loshchilov and Hutter 2017, without restarts). */
export function cosine(lr: number, options: Decay): Schedule {
  return schedule("cosine", lr, options, (progress) => (1 + Math.cos(Math.PI * progress)) / 2);
}

/** The names of the schedules. */
export type ScheduleName = "constant" | "linear" | "cosine";

/** The schedules by name, as functions of the rate, the warm-up steps and the total steps; "constant" ignores the total. */
export const SCHEDULES: {
  readonly [S in ScheduleName]: (
    lr: number,
    options: { readonly warmup: number; readonly steps: number },
  ) => Schedule;
} = { constant: (lr, { warmup }) => constant(lr, { warmup }), linear, cosine };

/** The names of the schedules, as a list. */
export const SCHEDULE_NAMES: readonly ScheduleName[] = Object.keys(SCHEDULES) as ScheduleName[];
