/** Memory that outlives a program, and the clock of its updates. */
import type { QueuedBuffer } from "./queue.ts";

/** A parameter, optimizer state, or a result that was read. Its `version` is the time of its last update in place. */
export interface Storage {
  readonly buffer: QueuedBuffer;
  version: number;
  /** For messages: the path of the parameter, or what this memory is. */
  name: string;
}

/** A storage's value as it was at `version`. */
export interface StorageVersion {
  readonly storage: Storage;
  readonly version: number;
}

/** Updates of any storage so far: a clock. */
let updates = 0;
export const updatesSoFar = (): number => updates;

/** To be called where `storage` gets new content: tensors built on the old one are stale from now on. */
export function touch(storage: Storage): void {
  storage.version = ++updates;
}

/** What is said where such a tensor is read or differentiated. */
export function checkCurrent({ storage, version }: StorageVersion): void {
  if (storage.version === version) return;
  throw new Error(
    `${storage.name} has been updated since a tensor was built on its value; ` +
      `read or differentiate the tensor before the update, or build it again after`,
  );
}
