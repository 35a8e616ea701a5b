/** What training is given, and what it reports. */
import type * as optim from "@tiedlora/nn/optim";
import type { Adapter } from "../adapter/adapter.ts";
import type { LanguageModel } from "../model.ts";
import type { BatchSource } from "../data/batches.ts";

/** What `train` needs. */
export interface TrainOptions {
  readonly model: LanguageModel;
  readonly adapter: Adapter;
  readonly optimizer: optim.Optimizer;
  /** Of the whole run, those done before included. */
  readonly steps: number;
  /** Steps done before, by the same run before it was cut off. Default: 0. */
  readonly start?: number;
  /** Tokens seen in those. Default: 0. */
  readonly tokens?: number;
  /** The batches in order, counted from 0: step s takes batch s, or the next `accumulate`. */
  readonly batch: BatchSource;
  /**
   * Batches a step, whose gradients are those of one batch of all their tokens; the last step of an epoch may have fewer.
   * Default: 1.
   */
  readonly accumulate?: number;
  /**
   * Whether the caller wants to read the adapter as it is after a given number of steps: then the next step is not begun before
   * the caller asks for its report. Default: never.
   */
  readonly pauseAfter?: (step: number) => boolean;
  /** Stops after the current step. */
  readonly signal?: AbortSignal;
}

/** What is known about a step once its loss is. */
export interface StepReport {
  /** From 1. */
  readonly step: number;
  readonly steps: number;
  /** Before the step's update: the mean over the predicted tokens of -log p, in nats. */
  readonly loss: number;
  readonly lr: number;
  /** Of the gradients of all parameters together, before clipping; null if the optimizer does not clip. */
  readonly gradNorm: number | null;
  /** Tokens seen so far, without padding. */
  readonly tokens: number;
  readonly tokensPerSecond: number;
  readonly secondsLeft: number;
  /** On the device. */
  readonly memoryBytes: number;
}
