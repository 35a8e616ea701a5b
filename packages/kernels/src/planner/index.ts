/** What a planner makes programs with: everything about kernels that needs no graph. Backends do without it. */
export { identity } from "../reference/arithmetic.ts";
export * from "./affine.ts";
export * from "./canonical.ts";
export * from "./memory.ts";
export * from "./order.ts";
export * from "./space.ts";
