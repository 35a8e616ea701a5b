/** Runs train.js in a page, on the backend that its address names: #cpu. */
import { cpu } from "@tiedlora/backend-cpu";
import { webgpu } from "@tiedlora/backend-webgpu";
import { train } from "./train.js";

const BACKENDS = { cpu, webgpu };
globalThis.losses = BACKENDS[location.hash.slice(1)]().then(train);
