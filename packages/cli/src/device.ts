/** Backends by name. Each is loaded only when it is asked for. */
import { reference, type Device } from "@tiedlora/core";

const OPEN = {
  cpu: async (): Promise<Device> => (await import("@tiedlora/backend-cpu")).cpu(),
  webgpu: async (): Promise<Device> => (await import("@tiedlora/backend-webgpu/node")).webgpu(),
  reference: async (): Promise<Device> => Promise.resolve(reference()),
} as const;

export type BackendName = keyof typeof OPEN;
export const BACKEND_NAMES: readonly BackendName[] = ["cpu", "webgpu", "reference"];

/** Runs `work` on a device, and closes the device whatever happens. */
export async function withDevice<T>(name: BackendName, work: (device: Device) => Promise<T>): Promise<T> {
  const device = await OPEN[name]();
  try {
    return await work(device);
  } finally {
    device.close();
  }
}
