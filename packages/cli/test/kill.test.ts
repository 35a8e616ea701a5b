/** Training that is killed at any moment, even while it writes a checkpoint, resumes as if nothing had happened. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { ended, start } from "./support/command.ts";
import { temporary, writeExamples, writeModel } from "./support/model-directory.ts";

/** Each costs a start of the program, a second or two; npm run test:long tries more of them. */
const KILLS = process.env["TIEDLORA_LONG"] === undefined ? 2 : 30;

const folder = temporary();
await writeModel(join(folder, "model"));
writeExamples(join(folder, "train.jsonl"));

const STEPS = 60;
const ARGUMENTS = [
  "train",
  "--json",
  ...`--model ${folder}/model --data ${folder}/train.jsonl --valid ${folder}/train.jsonl`.split(" "),
  ...`--batch 2 --seq 32 --rank 2 --lr 0.02 --dropout 0.2 --save-every 1 --eval-every 7 --steps ${STEPS}`.split(
    " ",
  ),
];

/**
 * Kills the process once it has done so many more steps, or with 0 is about to go on, and some milliseconds have passed.
 * Says whether that was before its end.
 */
async function killed(out: string, steps: number, delay: number): Promise<boolean> {
  const child = start(...ARGUMENTS, "--resume", "--out", out);
  const kill = (): void => void setTimeout(() => child.kill("SIGKILL"), delay);
  let seen = 0;
  child.stdout!.on("data", (data: Buffer) => {
    const before = seen;
    seen += data.toString().split("\n").length - 1;
    if (before < steps && seen >= steps) kill();
  });
  child.stderr!.on("data", (data: Buffer) => {
    if (steps === 0 && /going on|before training/.test(data.toString())) kill();
  });
  const { signal, code, info } = await ended(child);
  assert.ok(signal === "SIGKILL" || code === 0, `ended by itself, with ${code}: ${info}`);
  return signal === "SIGKILL";
}

/** Whether a checkpoint in the directory was being written, or removed, when the process ended. */
function halfWritten(out: string): boolean {
  const checkpoints = join(out, "checkpoints");
  return existsSync(checkpoints) && readdirSync(checkpoints).some((name) => name.startsWith(".step-"));
}

const losses = (directory: string): unknown[] =>
  readFileSync(join(directory, "logs/metrics.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => (JSON.parse(line) as { step: number; loss: number; valid_loss?: number }))
    .map(({ step, loss, valid_loss }) => [step, loss, valid_loss]); // prettier-ignore

function assertSame(out: string, straight: string, seed: number): void {
  for (const path of ["adapter_model.safetensors", "adapter_config.json"])
    assert.ok(
      readFileSync(join(out, path)).equals(readFileSync(join(straight, path))),
      `${path}, seed ${seed}`,
    );
  assert.deepEqual(
    readdirSync(join(out, "checkpoints")),
    readdirSync(join(straight, "checkpoints")),
    "nothing is left behind",
  );
  assert.deepEqual(losses(out), losses(straight));
}

test(`a run that is killed at random moments, and resumed, gives the adapter of one that was not, bit for bit: ${KILLS} times`, async (t) => {
  const straight = join(folder, "straight");
  const first = await ended(start(...ARGUMENTS, "--out", straight));
  assert.equal(first.code, 0, first.info);
  const seed = Date.now() % 2 ** 31;
  const moment = fc.tuple(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 25 }));
  const moments = fc.sample(moment, { numRuns: 3 * KILLS, seed });
  let [kills, half, runs] = [0, 0, 1];
  const directory = (): string => join(folder, `cut-${runs}`);
  for (const [steps, delay] of moments) {
    if (kills === KILLS) break;
    if (await killed(directory(), steps, delay)) {
      kills++;
      if (halfWritten(directory())) half++;
    } else {
      assertSame(directory(), straight, seed); // it was faster: begin another
      runs++;
    }
  }
  const last = await ended(start(...ARGUMENTS, "--resume", "--out", directory()));
  assert.equal(last.code, 0, last.info);
  assertSame(directory(), straight, seed);
  t.diagnostic(`seed ${seed}: ${kills} kills in ${runs} runs, ${half} of them in the middle of a checkpoint`);
  assert.equal(kills, KILLS);
  if (KILLS > 10) assert.ok(half > 0, "one of so many is in the middle of a checkpoint");
});
