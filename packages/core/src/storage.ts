/** Memory that outlives a program, and the clock of its updates. */
import type { QueuedBuffer } from "@tiedlora/kernels/queue";

/** A parameter, optimizer state, or a result that was read. Its `version` is the time of its last update in place. */
export interface Storage {
  readonly buffer: QueuedBuffer;
  version: number;
  /** The name in messages: the path of the parameter, or a description of the memory. */
  name: string;
  /** The last trace that reached it, and its number there. */
  walk: number;
  position: number;
}

/** A storage's value as it was at `version`. */
export interface StorageVersion {
  readonly storage: Storage;
  readonly version: number;
}

/** The number of updates of all storages so far: a clock. */
let updates = 0;
export const updatesSoFar = (): number => updates;

/** Must be called when `storage` gets new content: tensors built on the old content are stale from then on. */
export function touch(storage: Storage): void {
  storage.version = ++updates;
}

/** Throws if the storage was updated after `version`: called when a tensor built on it is read or differentiated. */
export function checkCurrent({ storage, version }: StorageVersion): void {
  if (storage.version === version) return;
  throw new Error(
    `${storage.name} has been updated since a tensor was built on its value; ` +
      `read or differentiate the tensor before the update, or build it again after`,
  );
}
