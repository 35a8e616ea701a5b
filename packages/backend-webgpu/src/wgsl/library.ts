/** Which library calls have kernels here, and those kernels. */
import type { LibraryCall } from "@tiedlora/core";
import { renderMatmul } from "./matmul.ts";
import type { Kernel, Target } from "./target.ts";

/** Whether this call has a kernel of its own. */
export function isRendered(call: LibraryCall): boolean {
  return call.name === "matmul";
}

export function renderLibrary(call: LibraryCall, bufferBytes: readonly number[], target: Target): Kernel[] {
  if (call.name === "matmul") return renderMatmul(call, bufferBytes, target);
  throw new Error(`backend-webgpu: ${call.name} was compiled although accelerates() is false for it`);
}
