/** Which library calls have kernels here, and those kernels. */
import type { LibraryCall } from "@tiedlora/core";
import type { Kernel, Target } from "./target.ts";

/** Whether this call has a kernel of its own. */
export function isRendered(_call: LibraryCall, _target: Target): boolean {
  return false;
}

export function renderLibrary(call: LibraryCall, _bufferBytes: readonly number[], _target: Target): Kernel[] {
  throw new Error(`backend-webgpu: ${call.name} was compiled although accelerates() is false for it`);
}
