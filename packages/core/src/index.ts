/**
 * Tensors, automatic differentiation, random numbers and files; backends plug in below, modules and optimizers build on it.
 * @module
 */
export * from "@tiedlora/kernels";
export * from "@tiedlora/safetensors";
export { Device, type DeviceOptions, type NestedArray, reference, type TensorOptions } from "./device.ts";
export { explain, type Traced } from "./explain.ts";
export { Node, type Attrs, type Op, type Range, type Shape, type Storage, topological } from "./graph.ts";
export { assign, checkMask, Parameter } from "./parameter.ts";
export * as random from "./random.ts";
export { Key, key, normalArray, permutation, uniformArray } from "./random.ts";
export { sameShape } from "./shape.ts";
export { arange, checkpoint, concat, full, grad, gradOrNull, iota, ones, realize, stack } from "./tensor.ts";
export { type SliceSpec, Tensor, type TensorOrNumber, where, zeros } from "./tensor.ts";
