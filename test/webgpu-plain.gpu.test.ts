/** The conformance suite on what every WebGPU implementation offers: default limits, no optional features. */
import { webgpu } from "@tiedlora/backend-webgpu";
import { register } from "./support/conformance.ts";
import { skip } from "./support/gpu.ts";

register(({ fusion }) => webgpu({ fusion, variant: "plain" }), { skip });
