/** The part of the library that needs Node's file system. */
export { loadAdapter, saveAdapter, textFile } from "./node/files.ts";
