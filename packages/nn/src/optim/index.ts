/**
 * Optimizers and learning-rate schedules.
 * @module
 */
export * from "./adafactor.ts";
export * from "./adamw.ts";
export type { Rule, WeightDecay } from "./checks.ts";
export * from "./ema.ts";
export * from "./lion.ts";
export * from "./muon.ts";
export { type Gradients, Optimizer, type OptimizerOptions } from "./optimizer.ts";
export * from "./schedule.ts";
export * from "./sgd.ts";
export * from "./sm3.ts";
export type { OptimizerState, State, StateShapes, StateValues } from "./state.ts";
