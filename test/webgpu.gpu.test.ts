/** The conformance suite on WebGPU, through Dawn: half of the random cases unless all are asked for; outside CI its core. */
import { webgpu } from "@tiedlora/backend-webgpu";
import { register } from "./support/conformance.ts";
import { slowSubset } from "./support/effort.ts";
import { skip } from "./support/gpu.ts";

register(({ fusion }) => webgpu({ fusion }), { skip, effort: 0.5, subset: slowSubset });
