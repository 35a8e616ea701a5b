/** Sweeps of ten thousand runs: planning, deciding and reporting take seconds, and no more than 300 MB. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { typescriptProgram } from "../../../test/support/programs.ts";
import { HalvingSchedule } from "../src/sweep/halving.ts";
import { parseSweep } from "../src/sweep/spec.ts";
import { pretended } from "./support/pretended.ts";

const RATES = Array.from({ length: 2000 }, (_, i) => 0.001 * 1.003 ** i);
const SEARCH = `
on: { model: base, tasks: choice }
out: unused
search: { successive-halving: { min-steps: 10 } }
vary: { method: [lora, vera, tl1, tl2, tl6], rank: 8, lr: [${RATES.join(", ")}] }
train: { steps: 270 }
`;
const GRID = `
on: { model: base, tasks: [choice, summary, translation, extraction, arithmetic] }
out: unused
vary: { method: [lora, vera, tl1, tl2, tl3, tl4, tl5, tl6], rank: [2, 4, 8, 16, 32], seed: [0, 1, 2, 3, 4], lr: [${RATES.slice(0, 10).join(", ")}] }
`;

test("a search over ten thousand variants is planned, and decides after each result, in ten seconds", () => {
  const before = process.cpuUsage();
  const schedule = new HalvingSchedule(parseSweep(SEARCH, "f"));
  let runs = 0;
  for (let [next] = schedule.runs(); next !== undefined; [next] = schedule.runs()) {
    schedule.learn([pretended(next)]);
    runs++;
  }
  assert.ok(runs > 13_000 && runs < 20_000, `${runs} runs`);
  assert.equal(schedule.standings().length, 10_000);
  const { user, system } = process.cpuUsage(before);
  assert.ok((user + system) / 1e6 < 10, `${(user + system) / 1e6} s`);
});

/** What many-script.ts prints. */
interface Taken {
  readonly runs: number;
  readonly reported: number;
  readonly perRun: Readonly<Record<string, number>>;
  readonly seconds: number;
  readonly megabytes: number;
}

/** A folder in memory, where there is one with enough space: how long a disk takes to flush ten thousand files says nothing here. */
function inMemory(): string | null {
  const folder = "/dev/shm";
  if (!existsSync(folder)) return null;
  const { bavail, bsize } = statfsSync(folder);
  return bavail * bsize > 500e6 ? folder : null;
}

/** Performs a sweep whose runs do nothing. */
function performed(t: TestContext, text: string): Taken {
  const folder = mkdtempSync(join(inMemory() ?? tmpdir(), "tiedlora-many-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, "sweep.yaml");
  writeFileSync(file, text);
  const script = join(import.meta.dirname, "support/many-script.ts");
  const args = ["--max-old-space-size=160", ...typescriptProgram(script), join(folder, "out"), file];
  const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
  try {
    return JSON.parse(stdout) as Taken;
  } catch {
    throw new Error(stderr);
  }
}

/** The calls of the file system that a run costs: to claim it, to publish its result, and to give up the claim. */
const PER_RUN = 22;
const total = (perRun: Taken["perRun"]): number => Object.values(perRun).reduce((sum, one) => sum + one, 0);

test("ten thousand runs that do nothing are planned, claimed, published and reported by few calls and in 300 MB", (t) => {
  const { runs, reported, perRun, seconds, megabytes } = performed(t, GRID);
  assert.deepEqual([runs, reported], [10_005, 10_005]);
  assert.ok(total(perRun) < PER_RUN, JSON.stringify(perRun));
  assert.equal(Math.round(perRun["fsync"]!), 1, "the disk is waited for once");
  assert.ok(megabytes < 300, `${megabytes} MB`);
  t.diagnostic(`${seconds} s of computing, ${megabytes} MB`);
});

test("what a run of a search costs does not grow with the number of variants", (t) => {
  const small = performed(t, SEARCH.replace(RATES.join(", "), RATES.slice(0, 100).join(", ")));
  assert.ok(small.runs > 650, `${small.runs} runs`);
  assert.ok(total(small.perRun) < PER_RUN + 4, JSON.stringify(small.perRun));
});
