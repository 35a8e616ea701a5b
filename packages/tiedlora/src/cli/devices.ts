/** `tiedlora devices`: where this machine can compute. */
import { cpus, totalmem } from "node:os";
import type { Command } from "commander";
import type { CpuBackend } from "@tiedlora/backend-cpu";
import type { WebGpuBackend } from "@tiedlora/backend-webgpu";
import type { Device } from "@tiedlora/core";
import { BACKEND_NAMES, withDevice, type BackendName } from "./device.ts";
import type { Output } from "./output.ts";

const DETAILS: Readonly<Record<BackendName, (device: Device) => string>> = {
  cpu: ({ backend }) =>
    `${cpus()[0]?.model ?? "unknown"}, ${(backend as CpuBackend).threads} threads, WebAssembly SIMD, ` +
    `${(totalmem() / 2 ** 30).toFixed(1)} GiB of memory (4 GiB usable)`,
  webgpu: ({ backend }) => {
    const { vendor, architecture, description, software } = (backend as WebGpuBackend).adapter;
    const name = [vendor, architecture, description].filter(Boolean).join(" ");
    return software ? `${name} (in software: slower than cpu)` : name;
  },
  reference: () => "interpreter in float64: exact and slow",
};

interface Found {
  readonly name: BackendName;
  readonly available: boolean;
  readonly detail: string;
}

export function addDevices(program: Command, output: Output): void {
  program
    .command("devices")
    .description("list the backends, and what they find on this machine")
    .option("--json", "print one JSON object a backend")
    .addHelpText("after", "\nExample:\n  tiedlora devices")
    .action(async ({ json }: { readonly json?: true }) => {
      for (const name of BACKEND_NAMES) {
        const found = await look(name);
        if (json) output.out(JSON.stringify(found));
        else output.out(`${name.padEnd(10)} ${found.available ? "" : "not available: "}${found.detail}`);
      }
    });
}

async function look(name: BackendName): Promise<Found> {
  try {
    const detail = await withDevice(name, (device) => Promise.resolve(DETAILS[name](device)));
    return { name, available: true, detail };
  } catch (error) {
    return { name, available: false, detail: error instanceof Error ? error.message : String(error) };
  }
}
