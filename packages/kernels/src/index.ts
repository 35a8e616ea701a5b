/**
 * The kernel IR that a planner passes to a backend, and the float64 interpreter that defines its meaning.
 * @module
 */
export type { Backend, BackendMemory, Caps, DeviceBuffer, Executable, Target } from "./backend.ts";
export { type Cost, costOf } from "./cost.ts";
export * from "./dtype.ts";
export { Explanation, type StepCost } from "./explanation.ts";
export * from "./kernel.ts";
export { keptOr, type LastingCache, type LastingKey } from "./lasting-cache.ts";
export * from "./quantization.ts";
export { ReferenceBackend, runStep } from "./reference.ts";
export { reduceIdentity } from "./reference/arithmetic.ts";
export { contiguousStrides, product } from "./shape.ts";
