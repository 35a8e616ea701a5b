/** The interface for packages that extend the core, like @tiedlora/nn; not for users of tensors. May change in minor versions. */
export * from "@tiedlora/kernels/arguments";
export * as build from "./build.ts";
export { gradients } from "./grad.ts";
export { isOp } from "./graph.ts";
export { dequantize } from "./ops/quantized.ts";
export { submit, type Update } from "./plan.ts";
export { execute } from "./realize.ts";
export { broadcastShapes, checkShape, show } from "./shape.ts";
export { touch } from "./storage.ts";
export { checkTensors, deviceOf } from "./tensor.ts";
export { trace, type Trace } from "./trace.ts";
