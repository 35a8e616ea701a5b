/** Tensors, automatic differentiation, neural-network modules, optimizers and files; backends plug in below. */
export * from "@tiedlora/kernels";
export * from "@tiedlora/safetensors";
export { Device, type DeviceOptions, type NestedArray, reference, type TensorOptions } from "./device.ts";
export { explain, Explanation, type StepCost, type Traced } from "./explain.ts";
export * as nn from "./nn/index.ts";
export { Node, type Attrs, type Op, type Range, type Shape, type Storage, topological } from "./node.ts";
export * as optim from "./optim/index.ts";
export { assign, Parameter } from "./parameter.ts";
export * as random from "./random.ts";
export { Key, key, normalArray, permutation, uniformArray } from "./random.ts";
export { sameShape } from "./shape.ts";
export * from "./tensor.ts";
