/** Backends by name. Each is loaded only when it is asked for. */
import { resolve } from "node:path";
import type { Command } from "commander";
import { reference, type Device } from "@tiedlora/core";
import { lastingCache } from "@tiedlora/experiments/node";
import type { Output } from "./output.ts";

const OPEN = {
  cpu: async (): Promise<Device> => {
    const { cpu } = await import("@tiedlora/backend-cpu");
    return cpu({ revectorize: await decideVectors(), ...lastingCache() });
  },
  webgpu: async (): Promise<Device> => (await import("@tiedlora/backend-webgpu/node")).webgpu(lastingCache()),
  reference: async (): Promise<Device> => Promise.resolve(reference()),
} as const;

export type BackendName = keyof typeof OPEN;
export const BACKEND_NAMES: readonly BackendName[] = ["cpu", "webgpu", "reference"];

/** What all devices of the running command have in common; `addDeviceOptions` sets it. */
let common: { readonly revectorize: boolean; readonly output: Output | null } = {
  revectorize: false,
  output: null,
};

/** Adds the options of all commands that concern devices. */
export function addDeviceOptions(program: Command, output: Output): void {
  program
    .option("--no-revectorize", "on the CPU, never use V8's experimental 256-bit vectors (Node 24 and later)")
    .option(
      "--cache <folder>",
      "keep plans, generated code and V8's code in this folder, so that the next start compiles little (or set TIEDLORA_CACHE)",
    )
    .hook("preAction", () => {
      const { revectorize, cache } = program.opts<{ revectorize: boolean; cache?: string }>();
      // the processes that a command starts inherit it
      if (cache !== undefined) process.env["TIEDLORA_CACHE"] = resolve(cache);
      common = { revectorize, output };
    });
}

/** Whether CPU devices of this command use 256-bit vectors. The output says so where the engine has them. */
export async function decideVectors(): Promise<boolean> {
  if (!common.revectorize) return false;
  const { on, available, why } = await (await import("@tiedlora/backend-cpu")).revectorization();
  if (on) common.output?.info(`cpu: 256-bit vectors are on (${why}); --no-revectorize turns them off`);
  else if (available) common.output?.info(`cpu: 256-bit vectors are off: ${why}`);
  return on;
}

/** Runs `work` on a device, and closes the device whatever happens. */
export async function withDevice<T>(name: BackendName, work: (device: Device) => Promise<T>): Promise<T> {
  const device = await OPEN[name]();
  try {
    return await work(device);
  } finally {
    device.close();
  }
}
