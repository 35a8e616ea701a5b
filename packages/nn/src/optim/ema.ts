/** Exponential moving averages of weights, which often predict better than the weights of the last step (Polyak and Juditsky 1992). */
import { assign, computeType, Parameter } from "@tiedlora/core";
import { checkNumber, checkOptions, describeArgument, refuse } from "@tiedlora/core/extend";

/** Settings of a moving average. */
export interface EMAOptions {
  /** The share of the old average that an update keeps, in [0, 1). Default 0.999. */
  readonly decay?: number;
  /** Whether the first updates keep less, min(decay, (1 + t) / (10 + t)), so that the start is forgotten soon. Default false. */
  readonly warmup?: boolean;
}

/** The moving averages of parameters. Call `update` after each step of the optimizer. */
export class EMA {
  /** The parameters that are averaged, each once. */
  readonly parameters: readonly Parameter[];
  readonly #averages = new Map<Parameter, Parameter>();
  readonly #decay: number;
  readonly #warmup: boolean;
  #updates = 0;

  /** Starts from the current values. Throws unless all parameters are on a device and of floats. */
  constructor(parameters: readonly Parameter[], options: EMAOptions = {}) {
    if (!Array.isArray(parameters) || !parameters.every((p) => p instanceof Parameter))
      refuse("EMA", parameters, "list of parameters", "one, e.g. model.parameters()");
    const { decay = 0.999, warmup = false } = checkOptions("EMA", options, "{ decay: 0.999 }", [
      "decay",
      "warmup",
    ]);
    checkNumber("EMA: decay", decay, "number in [0, 1)", decay >= 0 && decay < 1);
    if (typeof warmup !== "boolean") refuse("EMA: warmup", warmup, "boolean", "true or false");
    this.parameters = [...new Set(parameters as readonly Parameter[])];
    this.#decay = decay;
    this.#warmup = warmup;
    for (const p of this.parameters) {
      const zeros = new Float32Array(p.size);
      this.#averages.set(
        p,
        Parameter.from(p.device!, zeros, p.shape, computeType(p.dtype), `average of ${p.name}`),
      );
    }
    this.reset();
  }

  /** Takes the current values as the averages after so many updates, e.g. those of a file. */
  reset(updates = 0): void {
    checkNumber(
      "EMA: updates",
      updates,
      "whole number of at least 0",
      Number.isSafeInteger(updates) && updates >= 0,
    );
    this.#updates = updates;
    assign(this.parameters.map((p) => [this.#averages.get(p)!, p.cast(computeType(p.dtype))]));
  }

  /** The number of updates so far. */
  get updates(): number {
    return this.#updates;
  }

  /** average ← decay · average + (1 - decay) · parameter, for all parameters in one program. */
  update(): void {
    this.#updates++;
    const start = (1 + this.#updates) / (10 + this.#updates);
    const kept = this.#warmup ? Math.min(this.#decay, start) : this.#decay;
    assign(
      this.parameters.map((p) => {
        const average = this.#averages.get(p)!;
        return [average, average.mul(kept).add(p.mul(1 - kept))];
      }),
    );
  }

  /** The average of a parameter; `update` changes it. Throws for a parameter that is not averaged. */
  average(parameter: Parameter): Parameter {
    const average = this.#averages.get(parameter);
    if (average) return average;
    throw new RangeError(
      `EMA: ${describeArgument(parameter)} is not averaged; give one of the ${this.parameters.length} parameters that the EMA was made of`,
    );
  }

  /** Exchanges the values of all parameters with their averages, e.g. to evaluate; a second call restores them. */
  swap(): void {
    assign(
      this.parameters.flatMap((p) => {
        const average = this.#averages.get(p)!;
        return [
          [p, average.cast(p.dtype)],
          [average, p.cast(average.dtype)],
        ] as const;
      }),
    );
  }
}
