/**
 * The backend for Node: the same as the main entry, which finds Dawn by itself.
 * @module
 */
export * from "./index.ts";
