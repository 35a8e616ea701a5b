/**
 * Neural-network modules, losses, and functions composed of tensor operations. Optimizers are in
 * `@tiedlora/nn/optim`, linear algebra is in `@tiedlora/nn/linalg`.
 * @module
 */
export type { AdapterChoice, AdapterSelector, GraphState } from "./adapters.ts";
export * from "./attention.ts";
export * from "./embedding.ts";
export * from "./functional/convolution.ts";
export * from "./functional/einsum.ts";
export * from "./functional/gradient.ts";
export * from "./functional/placement.ts";
export * from "./functional/random.ts";
export * from "./functional/slice-scatter.ts";
export * from "./functional/sort.ts";
export { constantParameter, type InitOptions, normalParameter, uniformParameter } from "./init.ts";
export * from "./linear.ts";
export * from "./loss.ts";
export * from "./mlp.ts";
export * from "./module.ts";
export * from "./norm.ts";
export * from "./quantized.ts";
export { checkMask } from "./optim/mask.ts";
export { Parameter } from "@tiedlora/core";
