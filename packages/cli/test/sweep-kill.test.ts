/** Sweeps that are killed, as by a machine out of memory: finished runs are not repeated, and no process is left running. */
import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { RunStore } from "../../experiments/src/node/sweep/store.ts";
import type { RunResult } from "../../experiments/src/sweep/config.ts";
import { ended, start } from "./support/command.ts";
import { temporary, writeModel, writeSums } from "./support/model-directory.ts";
import { isRunning, workersOf } from "./support/processes.ts";

const folder = temporary();
await writeModel(join(folder, "model"));
writeSums(join(folder, "data"));

/** Writes a grid of three runs and the model without an adapter. */
function grid(name: string, steps: number, seeds = "0", methods = "lora, vera, tl6"): string {
  const path = join(folder, `${name}.yaml`);
  const text = `
    on: { model: ${folder}/model, tasks: [gsm8k], data: ${folder}/data, seq: 32, loss-only: true }
    out: ${folder}/${name}
    vary: { method: [${methods}], rank: 2, seed: [${seeds}] }
    train: { steps: ${steps}, batch: 2, lr: 0.01, dropout: 0.1 }
    evaluate: { every: 50, test: 4 }`;
  writeFileSync(path, text.replace(/^ {4}/gm, ""));
  return path;
}

const sweep = (file: string, ...more: string[]): ChildProcess =>
  start("sweep", file, "--json", "--parallel", "1", ...more);

/** Once the first run of a sweep has ended, and a part of the next is done. */
async function inTheMiddle(child: ChildProcess): Promise<void> {
  await new Promise((resolve) => child.stdout!.once("data", resolve));
  await sleep(150);
}

const idsIn = (out: string): string[] =>
  out.trim() === "" ? [] : out.trim().split("\n").map((line) => (JSON.parse(line) as { id: string }).id); // prettier-ignore

/** The result of a run, without the fields that depend on the clock. */
const found = (results: readonly RunResult[]): unknown[] =>
  results.map(({ seconds: _s, tokensPerSecond: _t, duration: _d, ...rest }) => rest);

test("a sweep that is killed, then its process, then left alone has the results of one that was not", async () => {
  const file = grid("straight", 250);
  const straight = await ended(sweep(file));
  assert.equal(straight.code, 0, straight.info);
  const expected = await new RunStore(join(folder, "straight")).finished();
  assert.equal(expected.length, 4);

  const out = join(folder, "cut");
  const store = new RunStore(out);
  const finished = async (): Promise<string[]> => (await store.finished()).map(({ id }) => id);
  const first = sweep(file, "--out", out);
  const firstEnd = ended(first);
  await inTheMiddle(first);
  first.kill("SIGKILL");
  assert.equal((await firstEnd).signal, "SIGKILL");
  const before = await finished();
  assert.ok(before.length > 0 && before.length < 3, `in the middle: ${before.length} runs had finished`);

  const second = sweep(file, "--out", out);
  const secondEnd = ended(second);
  await inTheMiddle(second);
  const [worker] = workersOf(second.pid!);
  process.kill(worker!, "SIGKILL");
  const broken = await secondEnd;
  assert.equal(broken.code, 1, broken.info);
  assert.match(broken.info, /1 of \d runs failed; the same command tries them again/);
  const [failure, ...others] = await store.failures();
  assert.match(failure!.message, /its process was ended by SIGKILL \(out of memory\?\)/);
  assert.deepEqual(others, []);
  const all = await finished();
  assert.equal(all.length, 3, "the others went on in a new process");
  assert.deepEqual(before.filter((id) => idsIn(broken.out).includes(id)), [], "nothing was done twice"); // prettier-ignore

  const last = await ended(sweep(file, "--out", out));
  assert.equal(last.code, 0, last.info);
  assert.deepEqual(idsIn(last.out), [failure!.id]);
  assert.deepEqual([found(await store.finished()), await store.failures()], [found(expected), []]);
  const names = readdirSync(out, { recursive: true, encoding: "utf8" });
  assert.deepEqual(names.filter((name) => name.endsWith(".tmp")), []); // prettier-ignore
});

test("three agents, one of them killed in the middle of a run: the results of one sweep that did them all", async () => {
  const file = grid("alone", 40, "0, 1, 2, 3, 4, 5, 6");
  const alone = await ended(sweep(file));
  assert.equal(alone.code, 0, alone.info);
  const expected = await new RunStore(join(folder, "alone")).finished();
  assert.equal(expected.length, 22);

  const out = join(folder, "shared");
  const agents = [0, 1, 2].map(() => sweep(file, "--out", out));
  const ends = agents.map(ended);
  const first = await Promise.race(agents.map((agent) => inTheMiddle(agent).then(() => agent)));
  first.kill("SIGKILL");
  const all = await Promise.all(ends);
  const killed = all[agents.indexOf(first)]!;
  assert.equal(killed.signal, "SIGKILL");
  for (const { code, info } of all.filter((one) => one !== killed)) assert.equal(code, 0, info);
  const store = new RunStore(out);
  assert.deepEqual([found(await store.finished()), await store.failures()], [found(expected), []]);
  const ids = all.flatMap((one) => idsIn(one.out));
  assert.equal(new Set(ids).size, ids.length, "nothing was done twice");
  assert.deepEqual(readdirSync(out).sort(), ["failed", "runs", "sweep.yaml"]);
});

test("a run that is asked to stop saves its state, and another agent goes on with it", async () => {
  const file = grid("goes-on", 800, "0", "lora");
  const straight = await ended(sweep(file));
  assert.equal(straight.code, 0, straight.info);
  const expected = await new RunStore(join(folder, "goes-on")).finished();

  const out = join(folder, "stopped");
  process.env["TIEDLORA_STALE_SECONDS"] = "3"; // its signs of life, which say how far it is, then come twice a second
  const first = sweep(file, "--out", out);
  delete process.env["TIEDLORA_STALE_SECONDS"];
  const firstEnd = ended(first);
  const claims = join(out, "claims");
  const training = (): boolean => {
    const [last] = existsSync(claims) ? readdirSync(claims) : [];
    try {
      return last !== undefined && /"step":[1-9]/.test(readFileSync(join(claims, last), "utf8"));
    } catch {
      return false; // that run has ended just now
    }
  };
  while (!training()) await sleep(20);
  first.kill("SIGTERM");
  const { code, info } = await firstEnd;
  assert.equal(code, 130, info);
  const [state] = readdirSync(join(out, "unfinished"));
  const bytes = readFileSync(join(out, "unfinished", state!)).toString("latin1");
  const step = Number(/\\"step\\":(\d+)/.exec(bytes)?.[1]);
  assert.ok(step > 0 && step < 800, `saved after step ${step}`);
  assert.deepEqual(readdirSync(claims), [], "the run is free");
  const second = await ended(sweep(file, "--out", out));
  assert.equal(second.code, 0, second.info);
  assert.deepEqual(found(await new RunStore(out).finished()), found(expected));
  assert.deepEqual(readdirSync(out).sort(), ["failed", "runs", "sweep.yaml"]);
});

for (const [when, moment] of [
  ["trains", inTheMiddle],
  ["is starting", () => sleep(0)],
] as const) {
  test(`the process of a sweep that is killed ends by itself while it ${when}`, async () => {
    const child = sweep(grid("endless", 1_000_000), "--parallel", String(availableParallelism()));
    const end = ended(child);
    let workers: number[] = [];
    while (workers.length === 0) {
      await sleep(10);
      workers = workersOf(child.pid!);
    }
    await moment(child);
    child.kill("SIGKILL");
    const deadline = Date.now() + 20_000;
    while (workers.some(isRunning) && Date.now() < deadline) await sleep(50);
    const left = workers.filter(isRunning);
    for (const pid of left) process.kill(pid, "SIGKILL");
    assert.deepEqual(left, []);
    const { info } = await end; // it holds the output open
    assert.doesNotMatch(info, /\n\s+at /, "it says nothing that looks like a crash");
  });
}
