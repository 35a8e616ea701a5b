/** Backends by name, for scripts. Each is loaded only when it is opened. */
import { type Device, reference } from "@tiedlora/core";

export const BACKENDS = {
  cpu: async (): Promise<Device> => (await import("@tiedlora/backend-cpu")).cpu(),
  webgpu: async (): Promise<Device> => (await import("@tiedlora/backend-webgpu/node")).webgpu(),
  reference: async (): Promise<Device> => Promise.resolve(reference()),
} as const;

export function isBackendName(name: string): name is keyof typeof BACKENDS {
  return Object.hasOwn(BACKENDS, name);
}
