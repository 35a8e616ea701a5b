/** The cases recorded from PyTorch on WebGPU, through Dawn: a part of them unless all are asked for. */
import { webgpu } from "@tiedlora/backend-webgpu";
import { skip } from "./support/gpu.ts";
import { registerRecorded } from "./support/recorded.ts";

registerRecorded(() => webgpu(), { backend: "webgpu", skip, share: 0.08 });
registerRecorded(() => webgpu({ variant: "plain" }), {
  backend: "webgpu",
  title: "plain: ",
  skip,
  share: 0.03,
});
