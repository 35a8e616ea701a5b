/** The conformance suite on WebGPU, through Dawn: half as many random cases as on the CPU, which compiles kernels faster. */
import { webgpu } from "@tiedlora/backend-webgpu";
import { long, register } from "./support/conformance.ts";
import { skip } from "./support/gpu.ts";

register(({ fusion }) => webgpu({ fusion }), { skip, ...(long ? {} : { effort: 0.5 }) });
