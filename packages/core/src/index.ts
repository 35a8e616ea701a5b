/** Tensors, automatic differentiation, neural-network modules, optimizers and files; backends plug in below. */
export type { Backend, BackendMemory, Caps, DeviceBuffer, Executable } from "./backend.ts";
export { Device, type DeviceOptions, type NestedArray, reference } from "./device.ts";
export * from "./dtype.ts";
export { explain, Explanation, type StepCost, type Traced } from "./explain.ts";
export * from "./io/index.ts";
export * from "./kernel.ts";
export * as nn from "./nn/index.ts";
export { Node, type Attrs, type Op, type Range, type Shape, type Storage, topological } from "./node.ts";
export * as optim from "./optim/index.ts";
export { assign, Parameter } from "./parameter.ts";
export * as random from "./random.ts";
export { Key, key, normalArray, permutation, uniformArray } from "./random.ts";
export { ReferenceBackend, runStep } from "./reference.ts";
export { product, sameShape } from "./shape.ts";
export * from "./tensor.ts";
