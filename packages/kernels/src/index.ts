/**
 * What a planner hands to a backend, and the float64 interpreter that says what it means.
 * @module
 */
export type { Backend, BackendMemory, Caps, DeviceBuffer, Executable } from "./backend.ts";
export { type Cost, costOf } from "./cost.ts";
export * from "./dtype.ts";
export { Explanation, type StepCost } from "./explanation.ts";
export * from "./kernel.ts";
export { ReferenceBackend, runStep } from "./reference.ts";
export { reduceIdentity } from "./reference/arithmetic.ts";
export { product } from "./shape.ts";
