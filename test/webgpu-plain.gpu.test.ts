/**
 * The conformance suite on what every WebGPU implementation offers: default limits, no optional features. A third of the
 * random cases unless all are asked for: a software adapter compiles these kernels slowly.
 */
import { webgpu } from "@tiedlora/backend-webgpu";
import { register } from "./support/conformance.ts";
import { skip } from "./support/gpu.ts";

register(({ fusion }) => webgpu({ fusion, variant: "plain" }), { skip, effort: 0.3 });
