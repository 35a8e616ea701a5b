/**
 * WebGPU backend of @tiedlora/core: loop kernels and library calls as WGSL, in browsers and in Node.
 * @module
 */
import { Device, type DeviceOptions } from "@tiedlora/core";
import { createWebGpuBackend } from "./device/backend.ts";
import type { OpenOptions } from "./device/open.ts";

export { createWebGpuBackend, WebGpuBackend } from "./device/backend.ts";
export {
  DeviceClosedError,
  DeviceLostError,
  MissingFeatureError,
  NoAdapterError,
  OutOfMemoryError,
  ShaderError,
  WebGpuError,
} from "./errors.ts";
export { type AdapterInfo, adapters, type OpenOptions } from "./device/open.ts";
export type { KernelTime } from "./device/profile.ts";

/**
 * A device on a GPU. Rejects with NoAdapterError if there is no adapter (the message says how to get one), and with
 * MissingFeatureError if it lacks a feature that `options` need.
 */
export async function webgpu(options: OpenOptions & DeviceOptions = {}): Promise<Device> {
  return new Device(await createWebGpuBackend(options), options);
}
