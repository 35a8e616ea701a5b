/** The optimizer of a run: its settings, and which optimizers they are for. */
import * as optim from "@tiedlora/nn/optim";
import { type Adapter, adapterOptimizer, OPTIMIZER_BETAS } from "tiedlora";
import { asUsage, UsageError } from "./settings.ts";
import type { TrainSettings } from "./train-settings.ts";

/** Throws UsageError for a setting that the optimizer does not have. */
export function checkOptimizer({ optimizer, beta1, beta2 }: TrainSettings): void {
  const given = beta1 === undefined ? beta2 === undefined ? null : "beta2" : "beta1"; // prettier-ignore
  if (given === null || OPTIMIZER_BETAS[optimizer] !== undefined) return;
  throw new UsageError(
    `--${given} is given, and --optimizer is ${optimizer}; it is for ${Object.keys(OPTIMIZER_BETAS).join(", ")}`,
  );
}

export function optimizerOf(adapter: Adapter, settings: TrainSettings, steps: number): optim.Optimizer {
  const { optimizer, lr, rates, loraPlus, schedule, warmup, weightDecay, decays, beta1, beta2, clip } =
    settings;
  const betas = beta1 === undefined || beta2 === undefined ? undefined : ([beta1, beta2] as const);
  const rated = { lr, rates, loraPlus, schedule, warmup };
  const all = { steps, optimizer, ...rated, weightDecay, decays, betas, clipNorm: clip };
  return asUsage(() => adapterOptimizer(adapter, all));
}

/** The moving averages of --ema; undefined without it. */
export function averageOf(adapter: Adapter, { ema }: TrainSettings): optim.EMA | undefined {
  if (ema === undefined) return undefined;
  return new optim.EMA(adapter.trainableParameters(), { decay: ema, warmup: true });
}
