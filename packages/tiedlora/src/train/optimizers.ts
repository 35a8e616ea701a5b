/** The optimizers that train adapters, by name, with the settings that suit an adapter, whose factors may start at zero. */
import type { Parameter } from "@tiedlora/core";
import * as optim from "@tiedlora/nn/optim";

/** The name of an optimizer. */
export type OptimizerName = "adamw" | "sgd" | "lion" | "adafactor" | "muon" | "sm3";

/** The settings that optimizers by name take. */
interface Settings extends optim.OptimizerOptions {
  readonly betas?: readonly [number, number];
  readonly weightDecay?: optim.WeightDecay;
}

/** The decay rates that the optimizers with moments have here, if none are given. */
export const OPTIMIZER_BETAS: { readonly [O in OptimizerName]?: readonly [number, number] } = {
  adamw: [0.9, 0.98],
  lion: [0.9, 0.99],
  muon: [0.9, 0.999],
};

interface Entry {
  /** What AdamW's learning rate is multiplied by, if none is given. */
  readonly lr: number;
  /** The settings that the optimizer has beside those that all have. */
  readonly takes: readonly ("betas" | "weightDecay")[];
  readonly make: (parameters: readonly Parameter[], settings: Settings) => optim.Optimizer;
}

export const OPTIMIZERS: { readonly [N in OptimizerName]: Entry } = {
  adamw: {
    lr: 1,
    takes: ["betas", "weightDecay"],
    make: (p, { betas = OPTIMIZER_BETAS.adamw!, ...rest }) => optim.adamW(p, { ...rest, betas }),
  },
  sgd: {
    lr: 10,
    takes: [],
    make: (p, { lr, lrFactor, clipNorm }) =>
      optim.sgd(p, {
        lr,
        ...(lrFactor && { lrFactor }),
        ...(clipNorm !== undefined && { clipNorm }),
        momentum: 0.9,
      }),
  },
  lion: { lr: 0.1, takes: ["betas", "weightDecay"], make: optim.lion },
  // relative to factors that start at zero, steps would stay tiny
  adafactor: {
    lr: 1,
    takes: ["weightDecay"],
    make: (p, settings) => optim.adafactor(p, { ...settings, relative: false }),
  },
  muon: { lr: 1, takes: ["betas", "weightDecay"], make: optim.muon },
  sm3: { lr: 1, takes: [], make: optim.sm3 },
};

/** What a learning rate that was searched for AdamW is multiplied by for each optimizer; a start for a search, not its result. */
export const OPTIMIZER_RATES: Readonly<Record<OptimizerName, number>> = Object.fromEntries(
  Object.entries(OPTIMIZERS).map(([name, { lr }]) => [name, lr]),
) as Record<OptimizerName, number>;

/** The names of the optimizers, as a list. */
export const OPTIMIZER_NAMES: readonly OptimizerName[] = Object.keys(OPTIMIZERS) as OptimizerName[];

/** Whether an optimizer has a setting. */
export function optimizerTakes(name: OptimizerName, setting: "betas" | "weightDecay"): boolean {
  return OPTIMIZERS[name].takes.includes(setting);
}
