/**
 * The CPU backend of tiedlora: WebAssembly SIMD, assembled in TypeScript, on all cores.
 * @module
 */
import { Device, type DeviceOptions } from "@tiedlora/core";
import { type CpuBackendOptions, createCpuBackend } from "./device/backend.ts";

export { CpuBackend, createCpuBackend, type CpuBackendOptions } from "./device/backend.ts";
export { revectorization, type Verdict } from "./revectorize/verdict.ts";
export type { KernelTime } from "./device/profile.ts";

/**
 * A device that computes on this machine's cores; with `threads: 1`, on the calling thread only. Rejects with a RangeError if
 * an option is out of range.
 */
export async function cpu(options: CpuBackendOptions & DeviceOptions = {}): Promise<Device> {
  return new Device(await createCpuBackend(options), options);
}
