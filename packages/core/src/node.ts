/**
 * Files on disk, for Node.
 * @module
 */
export * from "@tiedlora/safetensors/node";
