/**
 * The kernels that are chosen for a GPU, run on whatever adapter there is: tiles in workgroup memory, reductions by
 * many invocations, attention without subgroup broadcasts; with the adapter's features and limits.
 */
import { webgpu } from "@tiedlora/backend-webgpu";
import { register } from "./support/conformance.ts";
import { skip } from "./support/gpu.ts";

register(({ fusion }) => webgpu({ fusion, tuning: "hardware" }), { skip, subset: "core", effort: 0.25 });
