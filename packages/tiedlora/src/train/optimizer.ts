/**
 * Makes the optimizer of an adapter from a few settings: AdamW with warm-up, a schedule and clipping. The defaults are those with
 * which the methods' learning rates were measured.
 */
import { checkName, checkOptions, checkWhole } from "@tiedlora/core/arguments";
import * as optim from "@tiedlora/nn/optim";
import type { Adapter } from "../adapter/adapter.ts";

/** Settings of `adapterOptimizer`. */
export interface OptimizerSettings {
  /** The number of steps of the whole training. */
  readonly steps: number;
  /** The highest learning rate. Default: `learningRate` of the adapter's method. */
  readonly lr?: number | undefined;
  /** How the learning rate falls after the warm-up. Default: "cosine". */
  readonly schedule?: optim.ScheduleName | undefined;
  /** The number of steps over which the learning rate rises; at most `steps`. Default: a tenth of `steps`, at most 50. */
  readonly warmup?: number | undefined;
  /** The decay rates of AdamW's moments. Default: [0.9, 0.98]. */
  readonly betas?: readonly [number, number] | undefined;
  /** AdamW's weight decay. Default: 0.01. */
  readonly weightDecay?: number | undefined;
  /** The largest joint norm of all gradients; gradients above it are scaled down. Default: 1. */
  readonly clipNorm?: number | undefined;
}

const NAMES = ["steps", "lr", "schedule", "warmup", "betas", "weightDecay", "clipNorm"];

/** Makes the AdamW for all parameters of an adapter that `tiedlora train`, sweeps and the playground use. */
export function adapterOptimizer(adapter: Adapter, settings: OptimizerSettings): optim.AdamW {
  const what = "adapterOptimizer";
  const { steps, lr = adapter.method.learningRate, schedule = "cosine", betas = [0.9, 0.98], weightDecay = 0.01, clipNorm = 1 } = checkOptions(what, settings, "{ steps: 200 }", NAMES); // prettier-ignore
  checkWhole(`${what}: steps`, steps, 1);
  checkName(`${what}: schedule`, schedule, optim.SCHEDULE_NAMES);
  const warmup = Math.min(settings.warmup ?? Math.min(50, Math.ceil(steps / 10)), steps);
  return optim.adamW(adapter.parameters(), {
    lr: optim.SCHEDULES[schedule](lr, { warmup, steps }),
    betas,
    weightDecay,
    clipNorm,
  });
}
