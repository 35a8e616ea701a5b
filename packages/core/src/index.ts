/**
 * Tensors, automatic differentiation, random numbers and files; backends plug in below; modules and optimizers build on top.
 * @module
 */
export * from "@tiedlora/kernels";
export * from "@tiedlora/safetensors";
export { explain, type Traced } from "./explain.ts";
export { Node, type Attrs, type Inputs, type Op, type Range, type Shape, topological } from "./graph.ts";
export type { NestedArray, TensorOptions } from "./host-values.ts";
export { assign, Parameter } from "./parameter.ts";
export * as random from "./random.ts";
export { Key, key, normalArray, permutation, uniformArray } from "./random.ts";
export { sameShape } from "./shape.ts";
export type { Storage } from "./storage.ts";
export { checkpoint, checkpointIn } from "./checkpoint.ts";
export { arange, concat, full, grad, gradOrNull, iota, ones, realize, stack } from "./tensor.ts";
export { Device, type DeviceOptions, reference, type SliceSpec } from "./tensor.ts";
export { Tensor, type TensorOrNumber, where, zeros } from "./tensor.ts";
