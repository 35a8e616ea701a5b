/** The method that settings declare, with the options that only some methods have and ranks that fall. */
import { type CommonOptions, type Method, methodByName, type MethodName } from "tiedlora";
import { methodOptions } from "tiedlora/internal";
import { asUsage, UsageError } from "./settings.ts";
import type { TrainSettings } from "./train-settings.ts";

/** The method that the settings declare. */
export function methodOf(
  settings: Pick<TrainSettings, "method" | "rank" | "alpha" | "target" | "dropout"> & Partial<TrainSettings>,
): Method {
  const {
    method,
    rank,
    alpha,
    target,
    dropout,
    layers,
    rankPattern,
    alphaPattern,
    modulesToSave,
    bias,
    trainedTokens,
  } = settings;
  const declared = {
    rank,
    target: layers === undefined ? target : { modules: target, layers },
    dropout,
    ...(alpha !== undefined && { alpha }),
    ...(rankPattern !== undefined && { rankPattern }),
    ...(alphaPattern !== undefined && { alphaPattern }),
    ...(modulesToSave !== undefined && { modulesToSave }),
    ...(trainedTokens !== undefined && { trainedTokens }),
    ...(bias !== undefined && bias !== "none" && { bias }),
  };
  return declareMethod(method, declared, settings.methodOptions);
}

/** Declares a method with common options and its own. Throws UsageError if these are not what it takes. */
export function declareMethod(
  method: MethodName,
  common: CommonOptions,
  own: Readonly<Record<string, unknown>> | undefined,
): Method {
  if (own === undefined) return asUsage(() => methodByName(method, common));
  try {
    return methodByName(method, { ...common, ...methodOptions(method, own) });
  } catch (cause) {
    throw new UsageError(`--method-options: ${(cause as Error).message}`);
  }
}

/** The keys of --rank-schedule. */
const SCHEDULE_KEYS = ["rank", "warmup", "final", "every"];

/** Throws UsageError if the method cannot be declared with its options, or has no ranks that fall. */
export function checkMethod(settings: TrainSettings): void {
  const { rankSchedule, method, rank, initFrom } = settings;
  if (initFrom === undefined) methodOf(settings);
  if (rankSchedule === undefined) return;
  if (initFrom === undefined && method !== "ada-lora")
    throw new UsageError(`--rank-schedule is given, and --method is ${method}; it is for ada-lora`);
  const stray = Object.keys(rankSchedule).find((key) => !SCHEDULE_KEYS.includes(key));
  if (stray !== undefined)
    throw new UsageError(`--rank-schedule: there is no "${stray}"; give ${SCHEDULE_KEYS.join(", ")}`);
  if (rankSchedule["rank"] === undefined)
    throw new UsageError("--rank-schedule: the rank at the end is missing; give rank=4");
  if (initFrom === undefined && rankSchedule["rank"] > rank)
    throw new UsageError(
      `--rank-schedule ends at rank ${rankSchedule["rank"]}, above its start, --rank ${rank}; give a lower one`,
    );
}
