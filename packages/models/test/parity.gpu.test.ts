import { webgpu } from "@tiedlora/backend-webgpu";
import { skip } from "../../../test/support/gpu.ts";
import { FAMILIES, MODELS } from "./support/models.ts";
import { registerParity } from "./support/parity.ts";

/** Of the families with formulas of their own, Gemma 2 alone: a software driver takes long to compile their gradients. */
const packed = Object.fromEntries(
  Object.entries(MODELS).filter(([name]) => name === "gemma2" || !(name in FAMILIES)),
);

registerParity("webgpu", webgpu, { tokens: 195, skip, packed });
