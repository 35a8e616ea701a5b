/** Files on disk, for Node. */
export * from "@tiedlora/safetensors/node";
