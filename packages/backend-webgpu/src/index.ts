/** WebGPU backend of @tiedlora/core: loop kernels and library calls as WGSL, in browsers and in Node. */
export { createWebGpuBackend, WebGpuBackend } from "./backend.ts";
export {
  DeviceClosedError,
  DeviceLostError,
  NoAdapterError,
  OutOfMemoryError,
  ShaderError,
  WebGpuError,
} from "./errors.ts";
export type { AdapterInfo, OpenOptions } from "./open.ts";
export type { KernelTime } from "./profile.ts";
