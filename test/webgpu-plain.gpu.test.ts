/**
 * The conformance suite on what every WebGPU implementation offers: default limits, no optional features. A third as many
 * random cases as on what the adapter offers, because a software adapter compiles these kernels slowly.
 */
import { webgpu } from "@tiedlora/backend-webgpu";
import { long, register } from "./support/conformance.ts";
import { skip } from "./support/gpu.ts";

register(({ fusion }) => webgpu({ fusion, variant: "plain" }), { skip, ...(long ? {} : { effort: 0.3 }) });
