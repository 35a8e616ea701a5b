/** The options of training, and its reports. */
import type * as optim from "@tiedlora/nn/optim";
import type { Adapter } from "../adapter/adapter.ts";
import type { LanguageModel } from "../model.ts";
import type { AsyncBatchSource, BatchSource } from "../data/batches.ts";
import type { LossLike, Metrics } from "./loss.ts";
import type { GradientSource } from "./micro-batch.ts";

/** The options of `train`. */
export interface TrainOptions {
  readonly model: LanguageModel;
  readonly adapter: Adapter;
  readonly optimizer: optim.Optimizer;
  /** The number of steps of the whole run, including those before `start`. */
  readonly steps: number;
  /** The number of steps that the same run did before it was cut off. Default: 0. */
  readonly start?: number;
  /** The number of tokens seen in those steps. Default: 0. */
  readonly tokens?: number;
  /** The batches by index, from 0; each step takes the next one, or the next `accumulate`. */
  readonly batch: BatchSource | AsyncBatchSource;
  /**
   * The loss: one of `losses`, or a function of the model's outputs. Default: the model's own, the mean of -log p over the predicted
   * tokens, which needs less memory than `losses.crossEntropy()`.
   */
  readonly loss?: LossLike | undefined;
  /**
   * The number of batches for each step; their accumulated gradients are those of one batch of all their tokens. The last step of
   * an epoch may have fewer batches. Default: 1.
   */
  readonly accumulate?: number;
  /**
   * Computes the gradients of a step's batches in another place, from the adapter's values; they are added here, in the order of
   * the batches, so that the bits are those of one process. Default: they are computed here.
   */
  readonly gradients?: GradientSource | undefined;
  /**
   * Whether the caller wants to read the adapter as it is after a given number of steps; the next step then begins only when the
   * caller asks for the next report. Default: never.
   */
  readonly pauseAfter?: (step: number) => boolean;
  /**
   * Moving averages of the adapter's parameters, which are updated after each step. `fit` evaluates with them, and keeps those of the
   * best step. Default: none.
   */
  readonly average?: optim.EMA | undefined;
  /** Stops after the current step. */
  readonly signal?: AbortSignal;
}

/** The report of a step, once its loss is known. */
export interface StepReport {
  /** The step, from 1. */
  readonly step: number;
  readonly steps: number;
  /** The loss before the step's update: the mean of -log p over the predicted tokens, in nats, or the loss that was given. */
  readonly loss: number;
  /** What the loss reports beside its value, by name, such as the accuracy of preferences; empty for the model's own loss. */
  readonly metrics: Metrics;
  readonly lr: number;
  /** The joint norm of all gradients, before clipping; null if the optimizer does not clip. */
  readonly gradNorm: number | null;
  /** The number of tokens seen so far, without padding. */
  readonly tokens: number;
  /** The share of padding in the step's batches, from 0 to 1. */
  readonly padding: number;
  readonly tokensPerSecond: number;
  readonly secondsLeft: number;
  /** The bytes in use on the device. */
  readonly memoryBytes: number;
}
