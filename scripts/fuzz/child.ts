/** The process that runs cases one after another, and measures the processor time and the peak memory of each. */
import { readFileSync, writeFileSync } from "node:fs";
import { makeCase, writeCase } from "./case.ts";
import type { CaseResult, Job } from "./job.ts";
import { judge, MAX_BYTES, MAX_MS, type Verdict } from "./judge.ts";
import type { Target } from "./target.ts";
import { TARGETS, type TargetName } from "./targets.ts";

const prepared = new Map<TargetName, Target>();

process.on("message", (job: Job) => void run(job));

async function run({ target: name, seed, from, to, directory }: Job): Promise<void> {
  const target = prepared.get(name) ?? (await TARGETS[name]());
  prepared.set(name, target);
  for (let number = from; number < to; number++) {
    const { files, valid } = await makeCase(name, target, seed, number);
    if (target.onDisk === true) writeCase(files, directory);
    const { thrown, ms, bytes } = await measured(() => target.read(files, directory));
    await new Promise((resolve) =>
      process.send!(withLimits(number, judge(thrown, valid), ms, bytes), resolve),
    );
  }
  process.send!("done");
}

function withLimits(number: number, verdict: Verdict, ms: number, bytes: number): CaseResult {
  const excess = [
    ...(ms > MAX_MS ? [`it took ${Math.round(ms)} ms`] : []),
    ...(bytes > MAX_BYTES ? [`it took ${Math.round(bytes / 2 ** 20)} MB`] : []),
  ];
  if (excess.length === 0) return { ...verdict, number, ms, bytes };
  return { outcome: "finding", message: [...excess, verdict.message].join("; "), number, ms, bytes };
}

async function measured(work: () => Promise<void>): Promise<{ thrown: unknown; ms: number; bytes: number }> {
  const peakBefore = resetPeak();
  const cpu = process.cpuUsage();
  let thrown: unknown;
  try {
    await work();
  } catch (error) {
    thrown = error ?? null;
  }
  const { user, system } = process.cpuUsage(cpu);
  return { thrown, ms: (user + system) / 1000, bytes: Math.max(0, peak() - peakBefore) };
}

/** Resets the peak of resident memory to its current size where the system allows it (Linux). Returns the peak in bytes. */
function resetPeak(): number {
  try {
    writeFileSync("/proc/self/clear_refs", "5");
  } catch {
    // then the peak is that of all cases so far
  }
  return peak();
}

function peak(): number {
  try {
    return Number(/VmHWM:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))![1]) * 1024;
  } catch {
    return process.resourceUsage().maxRSS * 1024;
  }
}
