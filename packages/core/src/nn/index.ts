/** Neural-network modules. */
export * from "./attention.ts";
export * from "./embedding.ts";
export * from "./init.ts";
export * from "./linear.ts";
export * from "./loss.ts";
export * from "./mlp.ts";
export * from "./module.ts";
export * from "./norm.ts";
export { checkMask, Parameter } from "../parameter.ts";
