/** The losses of the library, by name. */
import { crossEntropy, distillation } from "./likelihood.ts";
import { dpo, kto, orpo } from "./preference.ts";
import { regularized } from "./regularized.ts";

/** Losses for `train`, `fit` and `evaluate`: each is a function from options to a loss. */
export const losses: {
  readonly crossEntropy: typeof crossEntropy;
  readonly distillation: typeof distillation;
  readonly dpo: typeof dpo;
  readonly orpo: typeof orpo;
  readonly kto: typeof kto;
  readonly regularized: typeof regularized;
} = { crossEntropy, distillation, dpo, orpo, kto, regularized };
