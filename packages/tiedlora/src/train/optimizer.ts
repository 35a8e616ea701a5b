/** The optimizer of an adapter from a few settings: AdamW with warm-up, a schedule and clipping, with the defaults that learning rates were measured with. */
import { checkName, checkOptions, checkWhole } from "@tiedlora/core/arguments";
import * as optim from "@tiedlora/nn/optim";
import type { Adapter } from "../adapter/adapter.ts";

/** Settings of `adapterOptimizer`. */
export interface OptimizerSettings {
  /** Steps of the whole training. */
  readonly steps: number;
  /** The highest learning rate. Default: the one that the adapter's method learns well with. */
  readonly lr?: number | undefined;
  /** How the rate falls after the warm-up. Default: "cosine". */
  readonly schedule?: optim.ScheduleName | undefined;
  /** Steps over which the rate rises, at most all of them. Default: a tenth of all steps, at most 50. */
  readonly warmup?: number | undefined;
  /** Decay rates of AdamW's moments. Default: [0.9, 0.98]. */
  readonly betas?: readonly [number, number] | undefined;
  /** Default: 0.01. */
  readonly weightDecay?: number | undefined;
  /** The largest norm of all gradients together; longer ones are scaled down. Default: 1. */
  readonly clipNorm?: number | undefined;
}

const NAMES = ["steps", "lr", "schedule", "warmup", "betas", "weightDecay", "clipNorm"];

/** AdamW for all parameters of an adapter, as `tiedlora train`, sweeps and the playground use it. */
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
