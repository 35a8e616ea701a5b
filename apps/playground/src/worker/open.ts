/** Chooses the device on which the page computes: the visitor's choice, or the faster one, and the reason. */
import { cpu } from "@tiedlora/backend-cpu";
import {
  adapters,
  type AdapterInfo,
  NoAdapterError,
  type WebGpuBackend,
  webgpu,
} from "@tiedlora/backend-webgpu";
import type { Device } from "@tiedlora/core";
import type { BackendChoice, BackendWish } from "../protocol.ts";

export interface Opened {
  readonly device: Device;
  readonly backend: BackendChoice;
  /** A description of the device. */
  readonly where: string;
  /** Why it was chosen. */
  readonly why: string;
}

/** Opens a device. Without WebGPU it uses WebAssembly, which can do all the same, and `why` says so. */
export async function openDevice(wish: BackendWish): Promise<Opened> {
  if (wish === "cpu") return onCpu("as you chose");
  if (wish === "webgpu") return onGpu("as you chose", "WebGPU was chosen, but");
  const found = await firstAdapter();
  if (typeof found === "string") return onCpu(found);
  if (found.software)
    return onCpu(
      `the WebGPU here, ${nameOf(found)}, is software too, and slower; you can choose it all the same`,
    );
  return onGpu("a GPU, which is faster than WebAssembly", "there is a GPU, but");
}

async function firstAdapter(): Promise<AdapterInfo | string> {
  try {
    return (await adapters())[0]!;
  } catch (error) {
    if (error instanceof NoAdapterError) return "this browser offers no WebGPU";
    return `WebGPU does not answer (${messageOf(error)})`;
  }
}

async function onGpu(why: string, otherwise: string): Promise<Opened> {
  try {
    const device = await webgpu();
    return { device, backend: "webgpu", where: nameOf((device.backend as WebGpuBackend).adapter), why };
  } catch (error) {
    const reason =
      error instanceof NoAdapterError ? "this browser offers none" : `it did not open (${messageOf(error)})`;
    return onCpu(`${otherwise} ${reason}`);
  }
}

async function onCpu(why: string): Promise<Opened> {
  const device = await cpu();
  const isolated = (globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated === true;
  const where = isolated
    ? `${navigator.hardwareConcurrency} threads`
    : "one thread (the page is not cross-origin isolated)";
  return { device, backend: "cpu", where, why };
}

function nameOf({ vendor, architecture, description }: AdapterInfo): string {
  const more = [vendor, architecture].filter(
    (part) => !description.toLowerCase().includes(part.toLowerCase()),
  );
  return [...more, description].join(" ").trim() || "a GPU";
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
