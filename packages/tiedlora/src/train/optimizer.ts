/**
 * Makes the optimizer of an adapter from a few settings: AdamW, or another by name, with warm-up, a schedule and clipping. The defaults are those with
 * which the methods' learning rates were measured.
 */
import type { Parameter } from "@tiedlora/core";
import { checkName, checkOptions, checkWhole, describeArgument } from "@tiedlora/core/arguments";
import * as optim from "@tiedlora/nn/optim";
import type { Adapter } from "../adapter/adapter.ts";
import { OPTIMIZER_NAMES, type OptimizerName, OPTIMIZERS } from "./optimizers.ts";
import { type ByParameter, numbersByParameter } from "./rates.ts";

/** Settings of `adapterOptimizer`. */
export interface OptimizerSettings {
  /** The number of steps of the whole training. */
  readonly steps: number;
  /** Default: "adamw". The others take the settings of their papers, but weight decay and the rate as below. */
  readonly optimizer?: OptimizerName | undefined;
  /**
   * The highest learning rate. Default: `learningRate` of the adapter's method, which was searched for AdamW; a tenth of it for
   * Lion, ten times as much for SGD.
   */
  readonly lr?: number | undefined;
  /** What `lr` is multiplied by for some parameters. Default: the `rate` that a factor's declaration has, or 1. */
  readonly rates?: ByParameter | undefined;
  /** LoRA+ (Hayou et al. 2024): the same as `rates: { B: loraPlus }`; the paper's ratio is 16. `rates` override it. */
  readonly loraPlus?: number | undefined;
  /** How the learning rate falls after the warm-up. Default: "cosine". */
  readonly schedule?: optim.ScheduleName | undefined;
  /** The number of steps over which the learning rate rises; at most `steps`. Default: a tenth of `steps`, at most 50. */
  readonly warmup?: number | undefined;
  /** The decay rates of the moments of AdamW (default: [0.9, 0.98]), Lion and Muon; an error with others. */
  readonly betas?: readonly [number, number] | undefined;
  /** The weight decay. Default: 0.01. An error with SGD and SM3, which have none here. */
  readonly weightDecay?: number | undefined;
  /** The weight decay of some parameters, in place of `weightDecay`. */
  readonly decays?: ByParameter | undefined;
  /** The largest joint norm of all gradients; gradients above it are scaled down. Default: 1. */
  readonly clipNorm?: number | undefined;
}

const NAMES = [
  "steps",
  "optimizer",
  "lr",
  "rates",
  "loraPlus",
  "schedule",
  "warmup",
  "betas",
  "weightDecay",
  "decays",
  "clipNorm",
];

/** Makes the optimizer for all parameters of an adapter that `tiedlora train`, sweeps and the playground use. */
export function adapterOptimizer(adapter: Adapter, settings: OptimizerSettings): optim.Optimizer {
  const what = "adapterOptimizer";
  const { steps, optimizer = "adamw", schedule = "cosine", betas, decays, clipNorm = 1 } = checkOptions(what, settings, "{ steps: 200 }", NAMES); // prettier-ignore
  checkName(`${what}: optimizer`, optimizer, OPTIMIZER_NAMES);
  const { lr: factor, takes, make } = OPTIMIZERS[optimizer];
  const { lr = factor * adapter.method.learningRate, weightDecay } = settings;
  for (const [name, value] of Object.entries({ betas, weightDecay: weightDecay ?? decays }))
    if (value !== undefined && value !== 0 && !takes.some((one) => one === name))
      throw new Error(`${what}: ${optimizer} has no ${name}; leave it out, or give another optimizer`);
  checkWhole(`${what}: steps`, steps, 1);
  checkName(`${what}: schedule`, schedule, optim.SCHEDULE_NAMES);
  const warmup = Math.min(settings.warmup ?? Math.min(50, Math.ceil(steps / 10)), steps);
  const decayOf = decays && numbersByParameter(adapter, `${what}: decays`, decays);
  const decay = weightDecay ?? 0.01;
  return make(adapter.parameters(), {
    lr: optim.SCHEDULES[schedule](lr, { warmup, steps }),
    lrFactor: rateOf(adapter, settings),
    clipNorm,
    ...(betas && { betas }),
    ...(takes.includes("weightDecay") && {
      weightDecay: decayOf ? (p: Parameter) => decayOf(p) ?? decay : decay,
    }),
  });
}

/** The factor of each parameter's learning rate: of `rates`, of LoRA+, or of the factor's declaration. */
function rateOf(
  adapter: Adapter,
  { rates = {}, loraPlus }: OptimizerSettings,
): (parameter: Parameter) => number {
  const given = numbersByParameter(adapter, "adapterOptimizer: rates", rates);
  const plus = loraPlus === undefined ? () => undefined : loraPlusOf(adapter, loraPlus);
  const state = adapter.stateDict();
  const declared = new Map(adapter.plan.factors.map(({ path, spec }) => [state.get(path)!, spec.rate]));
  return (parameter) => given(parameter) ?? plus(parameter) ?? declared.get(parameter) ?? 1;
}

function loraPlusOf(adapter: Adapter, ratio: number): (parameter: Parameter) => number | undefined {
  const { name, factors } = adapter.method;
  if (typeof ratio !== "number" || !Number.isFinite(ratio) || ratio <= 0)
    throw new RangeError(
      `adapterOptimizer: loraPlus ${describeArgument(ratio)}; give a finite number above 0, e.g. 16`,
    );
  const trains = adapter.plan.factors.some(
    ({ factor, path }) => factor === "B" && adapter.stateDict().get(path)!.requiresGrad,
  );
  if (!trains)
    throw new Error(
      `adapterOptimizer: loraPlus raises the learning rate of B, and ${name} trains no factor of this name (it trains ` +
        `${Object.keys(factors).join(", ") || "copies of parameters alone"}); name another by rates`,
    );
  return numbersByParameter(adapter, "adapterOptimizer: loraPlus", { B: ratio });
}
