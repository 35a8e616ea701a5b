/** Tensors, automatic differentiation, neural-network modules, optimizers and files; backends plug in below. */
export type { Backend, BackendMemory, Caps, DeviceBuffer, Executable } from "./backend.ts";
export * from "./dtype.ts";
export * from "./kernel.ts";
export { Node, type Attrs, type Op, type Range, type Shape, type Storage, topological } from "./node.ts";
export { product, sameShape } from "./shape.ts";
export { ReferenceBackend, runStep } from "./reference.ts";
export * from "./io/index.ts";
