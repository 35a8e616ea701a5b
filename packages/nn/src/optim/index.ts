/**
 * Optimizers and learning-rate schedules.
 * @module
 */
export * from "./adamw.ts";
export type { Rule } from "./checks.ts";
export { type Gradients, Optimizer, type OptimizerOptions } from "./optimizer.ts";
export * from "./schedule.ts";
export * from "./sgd.ts";
export type { OptimizerState, State, StateShapes, StateValues } from "./state.ts";
