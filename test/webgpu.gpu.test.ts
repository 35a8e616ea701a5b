/** The conformance suite on WebGPU, through Dawn. */
import { webgpu } from "@tiedlora/backend-webgpu";
import { register } from "./support/conformance.ts";
import { skip } from "./support/gpu.ts";

register(({ fusion }) => webgpu({ fusion }), { skip });
