/**
 * For packages that extend the core, as @tiedlora/nn does: the builders of graph nodes, execution with updates, and the checks
 * that messages share. Users of tensors need none of it, and it may change between minor versions.
 */
export * from "@tiedlora/kernels/arguments";
export * as build from "./build.ts";
export { isOp } from "./graph.ts";
export type { Update } from "./plan.ts";
export { execute } from "./realize.ts";
export { broadcastShapes, checkShape, show } from "./shape.ts";
export { touch } from "./storage.ts";
export { checkTensors, deviceOf } from "./tensor.ts";
