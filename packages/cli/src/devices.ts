/** `tiedlora devices`: the devices on which this machine can compute. */
import { cpus, totalmem } from "node:os";
import type { Command } from "commander";
import type { CpuBackend } from "@tiedlora/backend-cpu";
import type { AdapterInfo } from "@tiedlora/backend-webgpu";
import { BACKEND_NAMES, withDevice, type BackendName } from "./device.ts";
import type { Output } from "./output.ts";

interface Found {
  readonly name: BackendName;
  readonly available: boolean;
  readonly detail: string;
  /** For WebGPU: the description that each of its adapters (GPUs) gives of itself. */
  readonly adapters?: readonly AdapterInfo[];
}

type Look = Pick<Found, "detail" | "adapters">;

const LOOK: Readonly<Record<BackendName, () => Promise<Look>>> = {
  cpu: () =>
    withDevice("cpu", ({ backend }) => {
      const { threads, revectorized } = backend as CpuBackend;
      const memory = `${(totalmem() / 2 ** 30).toFixed(1)} GiB of memory (4 GiB usable)`;
      const detail = `${cpus()[0]?.model ?? "unknown"}, ${threads} threads, WebAssembly SIMD of ${revectorized ? 256 : 128} bits, ${memory}`;
      return Promise.resolve({ detail });
    }),
  webgpu: async () => {
    const { adapters } = await import("@tiedlora/backend-webgpu/node");
    const found = await adapters();
    return { detail: found.map(nameOf).join("; "), adapters: found };
  },
  reference: () => Promise.resolve({ detail: "interpreter in float64: exact and slow" }),
};

function nameOf({ vendor, architecture, description, software }: AdapterInfo): string {
  const name = [vendor, architecture, description].filter(Boolean).join(" ");
  return software ? `${name} (in software: slower than cpu)` : name;
}

/** The features and limits of a WebGPU adapter that matter for computing, as lines. */
function abilities({ features, limits }: AdapterInfo): string[] {
  const used = features.filter((f) => /^(shader-f16|subgroups|timestamp-query|.*subgroup-matrix)$/.test(f));
  const mebibytes = (name: string): string => `${Math.floor((limits[name] ?? 0) / 2 ** 20)} MiB`;
  return [
    `features  ${used.join(", ") || "none that would be used"}`,
    `limits    ${mebibytes("maxBufferSize")} a buffer, ${mebibytes("maxStorageBufferBindingSize")} a binding, ` +
      `${limits["maxStorageBuffersPerShaderStage"]} bindings a kernel, ` +
      `${limits["maxComputeInvocationsPerWorkgroup"]} invocations and ` +
      `${limits["maxComputeWorkgroupStorageSize"]} bytes a workgroup`,
  ];
}

export function addDevices(program: Command, output: Output): void {
  program
    .command("devices")
    .description("list the backends, and what each finds on this machine")
    .option("--json", "print one JSON object per backend")
    .addHelpText("after", "\nExample:\n  tiedlora devices")
    .action(async ({ json }: { readonly json?: true }) => {
      for (const name of BACKEND_NAMES) {
        const found = await look(name);
        if (json) output.out(JSON.stringify(found));
        else print(found, output);
      }
    });
}

function print({ name, available, detail, adapters = [] }: Found, output: Output): void {
  output.out(`${name.padEnd(10)} ${available ? "" : "not available: "}${detail}`);
  for (const adapter of adapters) {
    if (adapters.length > 1) output.out(`  ${nameOf(adapter)}`);
    for (const line of abilities(adapter)) output.out(`  ${line}`);
  }
}

async function look(name: BackendName): Promise<Found> {
  try {
    return { name, available: true, ...(await LOOK[name]()) };
  } catch (error) {
    return { name, available: false, detail: error instanceof Error ? error.message : String(error) };
  }
}
