/** The error for a loss that is not finite: it names the step, the parameter whose values are not finite, and what to try. */
import type * as nn from "@tiedlora/nn";
import { withWeights } from "../model.ts";
import type { StepReport, TrainOptions } from "./options.ts";

/** The loss, or a value after an update, is not finite. The adapter already includes the update of that step: do not save it. */
export class DivergedError extends Error {
  /** The step, from 1. */
  readonly step: number;

  constructor(step: number, loss: number, where: string) {
    super(`the loss is ${loss} at step ${step}: ${where}. Nothing of this step was saved`);
    this.name = "DivergedError";
    this.step = step;
  }

  /** The error for a step with a finite loss whose update has made values of `what` infinite or NaN. */
  static after(step: number, what: string): DivergedError {
    const error = new DivergedError(step, NaN, "");
    error.message =
      `after step ${step} not all values of ${what} are finite: try a lower learning rate, a warm-up, or a smaller bound ` +
      `for the gradients (--clip). Nothing of this step was saved`;
    return error;
  }
}

/** Describes which parameter has values that are not finite, and what to do. */
export async function diagnose(
  { model, adapter, start = 0 }: TrainOptions,
  lastFinite: StepReport | null,
): Promise<string> {
  const own = await firstNotFinite(modelParameters(model), model);
  if (own !== null) return `${own}, a weight of the model itself; load another copy of the model`;
  const found = await firstNotFinite(adapter.stateDict(), model);
  const before =
    lastFinite === null
      ? "at the first step already"
      : `after a loss of ${lastFinite.loss.toPrecision(4)} at step ${lastFinite.step}` +
        (lastFinite.gradNorm === null
          ? ""
          : ` with a gradient of norm ${lastFinite.gradNorm.toPrecision(4)}`);
  const advice =
    lastFinite === null && start === 0
      ? "the model overflows on this data: try another backend, or a model in f32 or bf16"
      : "try a lower learning rate, a warm-up, or a smaller bound for the gradients (--clip)";
  return `${found ?? "all parameters of the adapter are finite"}, ${before}; ${advice}`;
}

function modelParameters(model: nn.Module): Map<string, nn.Parameter> {
  return new Map([...model.namedParameters()].map(([path, parameter]) => [path, parameter]));
}

async function firstNotFinite(
  parameters: ReadonlyMap<string, nn.Parameter>,
  model: nn.Module,
): Promise<string | null> {
  for (const [path, parameter] of parameters) {
    const values = await withWeights(model, [parameter], () => parameter.data());
    let count = 0;
    for (const value of values) if (!Number.isFinite(value)) count++;
    if (count > 0) return `${count} of ${values.length} values of ${path} are not finite`;
  }
  return null;
}
