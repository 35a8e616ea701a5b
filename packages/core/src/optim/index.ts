/** Optimizers and learning-rate schedules. */
export * from "./adamw.ts";
export { Optimizer, type OptimizerOptions, type OptimizerState, type Rule, type State } from "./optimizer.ts";
export * from "./schedule.ts";
export * from "./sgd.ts";
