/**
 * The part of the library that needs Node's file system.
 * @module
 */
export { initFrom, loadAdapter, saveAdapter, saveAdapters, saveMerged, textFile } from "./node/files.ts";
