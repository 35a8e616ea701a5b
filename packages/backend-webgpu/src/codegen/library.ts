/** Which library calls have kernels here, and those kernels. */
import type { LibraryCall } from "@tiedlora/kernels";
import { isAttentionRendered, renderAttention } from "./attention/forward.ts";
import { renderAttentionGrad } from "./attention/gradient.ts";
import type { Buffers } from "./buffers.ts";
import { renderMatmul } from "./matmul/matmul.ts";
import { isQuantizedRendered } from "./matmul/quantized.ts";
import { renderGather, renderScatterAdd } from "./indexing.ts";
import type { Kernel, Target } from "./target.ts";

/** Whether this call has a kernel of its own. */
export function isRendered(call: LibraryCall): boolean {
  switch (call.name) {
    case "matmul":
      return call.inputs.every((o, i) => !o.quantized || (i % 2 === 1 && isQuantizedRendered(o)));
    case "gather":
    case "scatterAdd":
      return true;
    case "attention":
    case "attentionGrad":
      return isAttentionRendered(call);
  }
}

/** The dispatches of a call for which `isRendered` holds. */
export function renderLibrary(call: LibraryCall, buffers: Buffers, target: Target): Kernel[] {
  switch (call.name) {
    case "matmul":
      return renderMatmul(call, buffers.bytes, target);
    case "gather":
      return renderGather(call, buffers.bytes, target);
    case "scatterAdd":
      return renderScatterAdd(call, buffers.bytes, target);
    case "attention":
      return renderAttention(call, buffers, target);
    case "attentionGrad":
      return renderAttentionGrad(call, buffers, target);
  }
}
