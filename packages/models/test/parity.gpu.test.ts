import { webgpu } from "@tiedlora/backend-webgpu";
import { skip } from "../../../test/support/gpu.ts";
import { registerParity } from "./support/parity.ts";

registerParity("webgpu", webgpu, { tokens: 195, skip });
