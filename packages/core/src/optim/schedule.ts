/** Learning rates over steps. Steps count from 0; a warm-up rises linearly and reaches the full rate after `warmup` steps. */

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

function check(what: string, lr: number, { warmup = 0, steps, end = 0 }: Warmup & Partial<Decay>): void {
  const wrong = !(lr >= 0) || !(warmup >= 0) || !(end >= 0) || (steps !== undefined && !(steps >= warmup));
  if (wrong) {
    throw new RangeError(
      `${what}: lr ${lr}, warmup ${warmup}, steps ${steps}, end ${end}; none may be negative, and steps >= warmup`,
    );
  }
}

/** The rate while warming up, or null after that. */
function warming(lr: number, step: number, warmup = 0): number | null {
  return step < warmup ? (lr * (step + 1)) / warmup : null;
}

/** How far the decay has gone, in 0 … 1. */
function progress(step: number, { warmup = 0, steps }: Decay): number {
  return Math.min(1, (step - warmup) / Math.max(1, steps - warmup));
}

/** `lr` throughout. */
export function constant(lr: number, options: Warmup = {}): Schedule {
  check("constant", lr, options);
  return (step) => warming(lr, step, options.warmup) ?? lr;
}

/** Straight from `lr` to `end`. */
export function linear(lr: number, options: Decay): Schedule {
  check("linear", lr, options);
  const end = options.end ?? 0;
  return (step) => warming(lr, step, options.warmup) ?? lr + (end - lr) * progress(step, options);
}

/** Half a cosine from `lr` to `end` (Loshchilov and Hutter 2017, without restarts). */
export function cosine(lr: number, options: Decay): Schedule {
  check("cosine", lr, options);
  const end = options.end ?? 0;
  const half = (step: number): number => (1 + Math.cos(Math.PI * progress(step, options))) / 2;
  return (step) => warming(lr, step, options.warmup) ?? end + (lr - end) * half(step);
}
