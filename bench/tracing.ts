/**
 * Times the host's part of a training step whose program is cached: building the graph, its gradient and the updates, and
 * finding the program by its key. The backend computes nothing. The model has the structure of GPT-2 small (twelve layers,
 * twelve heads); sizes do not affect the graph, so they are small.
 *
 *   npm run bench:tracing
 */
import { cpus } from "node:os";
import { Device } from "@tiedlora/core";
import { idleBackend } from "./idle.ts";
import type { Method } from "./problems.ts";
import { prepare } from "./workloads.ts";

const SIZE = { layers: 12, dim: 48, heads: 12, vocab: 96, batch: 1, length: 64 };
const WARM_UP = 150;
const STEPS = 600;

console.log(`${cpus()[0]?.model.trim() ?? "?"}, Node ${process.versions.node}`);
for (const method of ["lora", "tl6", "full"] satisfies Method[]) {
  const workload = prepare(new Device(idleBackend()), { kind: "gpt", size: SIZE, method });
  for (let i = 0; i < WARM_UP; i++) workload.step(i);
  const times = Array.from({ length: STEPS }, (_, i) => {
    const start = performance.now();
    workload.step(i);
    return performance.now() - start;
  }).sort((a, b) => a - b);
  const ms = (share: number): string => `${times[Math.floor(share * (STEPS - 1))]!.toFixed(2)} ms`;
  const mean = times.reduce((a, b) => a + b) / STEPS;
  console.log(
    `${method.padEnd(6)} median ${ms(0.5)}, fastest ${ms(0)}, mean with collections of garbage ${mean.toFixed(2)} ms`,
  );
}
