/**
 * Times operations and whole training steps on built code (never under tsx's own compilation: it slows closures down).
 *
 *   npm run bench                                 all, on the CPU backend
 *   npm run bench -- matmul GPT                   cases whose name contains one of the words
 *   npm run bench -- --backend webgpu --seconds 2 --json
 */
import { cpus } from "node:os";
import { parseArgs } from "node:util";
import { cpu } from "@tiedlora/backend-cpu";
import { webgpu } from "@tiedlora/backend-webgpu/node";
import type { Device } from "@tiedlora/core";
import { CASES } from "./cases.ts";
import { measure } from "./measure.ts";

const BACKENDS: Record<string, () => Promise<Device>> = { cpu: () => cpu(), webgpu: () => webgpu() };

const { values, positionals: words } = parseArgs({
  allowPositionals: true,
  options: {
    backend: { type: "string", default: "cpu" },
    seconds: { type: "string", default: "3" },
    json: { type: "boolean", default: false },
  },
});
const open = BACKENDS[values.backend];
const seconds = Number(values.seconds);
if (open === undefined)
  throw new Error(`--backend ${values.backend}: expected ${Object.keys(BACKENDS).join(" or ")}`);
if (!(seconds > 0)) throw new Error(`--seconds ${values.seconds}: expected a number above 0`);

const chosen = CASES.filter(({ name }) => words.length === 0 || words.some((word) => name.includes(word)));
if (chosen.length === 0) {
  throw new Error(
    `no case contains ${words.join(" or ")}; there are: ${CASES.map(({ name }) => name).join("; ")}`,
  );
}

const device = await open();
const machine = `${cpus().length} × ${cpus()[0]?.model.trim() ?? "?"}, Node ${process.versions.node}, ${device.name}`;
if (!values.json) console.log(machine);
for (const one of chosen) {
  const run = one.setup(device);
  const { medianMs, spread, samples } = await measure(run, seconds);
  const gflops = one.flop === undefined ? undefined : one.flop / medianMs / 1e6;
  const gbs = one.bytes === undefined ? undefined : one.bytes / medianMs / 1e6;
  if (values.json) {
    console.log(
      JSON.stringify({ name: one.name, backend: device.name, medianMs, spread, samples, gflops, gbs }),
    );
    continue;
  }
  const rate = gflops !== undefined ? `${gflops.toFixed(1)} GFLOP/s` : `${gbs?.toFixed(1)} GB/s`;
  console.log(
    `${one.name.padEnd(40)} ${medianMs.toFixed(2).padStart(9)} ms ±${(100 * spread).toFixed(0).padStart(3)} %  ${rate}`,
  );
}
device.close();
