/**
 * Times operations and whole training steps on built code (never under tsx, whose compilation slows down closures).
 *
 *   npm run bench                                 all, on the CPU backend
 *   npm run bench -- matmul GPT                   cases whose name contains one of the words
 *   npm run bench -- --backend webgpu --seconds 2 --json
 *
 * "of peak" compares with the peak of the same device, measured in the same run: multiply-adds in registers, or memory traffic
 * (more than 100 % where data stay in cache). Peak memory counts the device's buffers, not code or the rest of the process.
 * `--profile` lists the time of each kernel of a case.
 */
import { cpus } from "node:os";
import { parseArgs } from "node:util";
import { cpu, CpuBackend } from "@tiedlora/backend-cpu";
import { webgpu, WebGpuBackend } from "@tiedlora/backend-webgpu/node";
import { Device } from "@tiedlora/core";
import { type Case, CASES } from "./cases.ts";
import { type Peak, measurePeak } from "./peak.ts";
import { Counting } from "./counting.ts";
import { measure, type Timing } from "./measure.ts";

const BACKENDS: Readonly<Record<string, () => Promise<Device>>> = {
  cpu: () => cpu(values.threads === undefined ? {} : { threads: Number(values.threads) }),
  webgpu: () => webgpu(),
};

const { values, positionals: words } = parseArgs({
  allowPositionals: true,
  options: {
    backend: { type: "string", default: "cpu" },
    threads: { type: "string" },
    seconds: { type: "string", default: "3" },
    json: { type: "boolean", default: false },
    profile: { type: "boolean", default: false },
  },
});
const open = BACKENDS[values.backend];
const seconds = Number(values.seconds);
if (open === undefined)
  throw new Error(`--backend ${values.backend}: expected ${Object.keys(BACKENDS).join(" or ")}`);
if (!(seconds > 0)) throw new Error(`--seconds ${values.seconds}: expected a number above 0`);

const matches = (name: string): boolean =>
  words.length === 0 || words.some((word) => name.toLowerCase().includes(word.toLowerCase()));
const chosen = CASES.filter(({ name }) => matches(name));
if (chosen.length === 0) {
  throw new Error(
    `no case contains ${words.join(" or ")}; there are: ${CASES.map(({ name }) => name).join("; ")}`,
  );
}

interface Result extends Timing {
  readonly name: string;
  readonly backend: string;
  /** In `unit`: billions of operations per second, billions of bytes per second, or tokens per second. */
  readonly rate: number;
  readonly unit: "GFLOP/s" | "GB/s" | "tokens/s";
  readonly ofPeak: number | null;
  readonly peakMb: number;
  readonly kernels: number;
}

/** Each case has its own device, so that its peak memory does not include that of other cases. */
async function runCase(one: Case, opened: Device, peak: Peak): Promise<Result> {
  const counting = new Counting(opened.backend);
  const device = new Device(counting.backend);
  const run = one.setup(device);
  await run();
  const before = counting.kernels;
  await run();
  const kernels = counting.kernels - before;
  // later the peak would also count results that wait for the garbage collector
  const peakMb = device.memory().peakBytes / 1e6;
  const timing = await measure(run, seconds);
  if (values.profile) await printProfile(opened, run);
  const { medianMs } = timing;
  const common = { name: one.name, backend: opened.name, ...timing, kernels, peakMb };
  if (one.flop !== undefined) {
    const rate = one.flop / medianMs / 1e6;
    return { ...common, rate, unit: "GFLOP/s", ofPeak: rate / peak.gflops };
  }
  if (one.bytes !== undefined) {
    const rate = one.bytes / medianMs / 1e6;
    return { ...common, rate, unit: "GB/s", ofPeak: rate / peak.gbs };
  }
  return { ...common, rate: ((one.tokens ?? 1) * 1000) / medianMs, unit: "tokens/s", ofPeak: null };
}

async function printProfile({ backend }: Device, run: () => Promise<void>): Promise<void> {
  if (!(backend instanceof CpuBackend || backend instanceof WebGpuBackend)) return;
  await backend.profile(run); // the first profile compiles and fills caches
  for (const { label, calls, milliseconds } of (await backend.profile(run)).slice(0, 12)) {
    console.log(`    ${milliseconds.toFixed(2).padStart(9)} ms ${String(calls).padStart(4)}x  ${label}`);
  }
}

function printRow(r: Result): void {
  const of = r.ofPeak === null ? "" : `${(100 * r.ofPeak).toFixed(0)} %`;
  const spread = `±${(100 * r.spread).toFixed(0)} %`;
  const columns = [
    r.name.padEnd(46),
    `${r.medianMs.toFixed(2)} ms`.padStart(12),
    spread.padStart(6),
    `${r.rate.toFixed(1)} ${r.unit}`.padStart(16),
    of.padStart(7),
    `${r.peakMb.toFixed(0)} MB`.padStart(9),
    `${r.kernels} kernels`.padStart(12),
  ];
  console.log(columns.join(" "));
}

const first = await open();
const peak = await measurePeak(first);
first.close();
if (values.json) console.log(JSON.stringify({ name: "peak", backend: values.backend, ...peak }));
else {
  const model = cpus()[0]?.model.trim() ?? "?";
  console.log(`${cpus().length} × ${model}, Node ${process.versions.node}, ${first.name}`);
  console.log(`peak: ${peak.gflops.toFixed(1)} GFLOP/s, ${peak.gbs.toFixed(1)} GB/s`);
}
for (const one of chosen) {
  const device = await open();
  const result = await runCase(one, device, peak);
  device.close();
  if (values.json) console.log(JSON.stringify(result));
  else printRow(result);
}
