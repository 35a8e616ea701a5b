/** Sweeps that are killed, as by a machine out of memory: finished runs are not repeated, and no process is left running. */
import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { readdirSync, writeFileSync } from "node:fs";
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
function grid(name: string, steps: number): string {
  const path = join(folder, `${name}.yaml`);
  const text = `
    on: { model: ${folder}/model, tasks: [gsm8k], data: ${folder}/data, seq: 32, loss-only: true }
    out: ${folder}/${name}
    vary: { method: [lora, vera, tl6], rank: 2 }
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
  results.map(({ seconds: _s, tokensPerSecond: _t, ...rest }) => rest);

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
