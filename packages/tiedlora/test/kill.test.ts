import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { ended, start } from "./support/command.ts";
import { temporary, writeExamples, writeModel } from "./support/model-directory.ts";

/** A start of the program costs seconds; npm run test:long tries more of them. */
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

/** Kills the process once it has done so many more steps and some milliseconds have passed. */
async function killed(
  out: string,
  lines: number,
  delay: number,
): Promise<{ signal: string | null; code: number }> {
  const child = start(...ARGUMENTS, "--resume", "--out", out);
  let seen = 0;
  child.stdout!.on("data", (data: Buffer) => {
    const before = seen;
    seen += data.toString().split("\n").length - 1;
    if (before < lines && seen >= lines) setTimeout(() => child.kill("SIGKILL"), delay);
  });
  const { signal, code, info } = await ended(child);
  assert.ok(signal === "SIGKILL" || code === 0, `ended by itself, with ${code}: ${info}`);
  return { signal, code };
}

test("a run that is killed at random moments, and resumed, gives the adapter of one that was not, bit for bit", async (t) => {
  const straight = await ended(start(...ARGUMENTS, "--out", join(folder, "straight")));
  assert.equal(straight.code, 0, straight.info);
  const seed = Date.now() % 2 ** 31;
  const moments = fc.sample(fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 0, max: 25 })), {
    numRuns: KILLS,
    seed,
  });
  t.diagnostic(`seed ${seed}`);
  const out = join(folder, "cut");
  let kills = 0;
  for (const [lines, delay] of moments) if ((await killed(out, lines, delay)).signal !== null) kills++;
  assert.ok(kills > 0, "at least once it was killed in time");
  const last = await ended(start(...ARGUMENTS, "--resume", "--out", out));
  assert.equal(last.code, 0, last.info);
  for (const path of ["adapter_model.safetensors", "adapter_config.json"])
    assert.ok(
      readFileSync(join(out, path)).equals(readFileSync(join(folder, "straight", path))),
      `${path}, seed ${seed}`,
    );
  const names = readdirSync(join(out, "checkpoints"));
  assert.deepEqual(names, readdirSync(join(folder, "straight/checkpoints")), "nothing is left behind");
  const losses = (directory: string): unknown[] =>
    readFileSync(join(directory, "logs/metrics.jsonl"), "utf8")
      .trim()
      .split("\n")
      .map((line) => (JSON.parse(line) as { step: number; loss: number; valid_loss?: number }))
      .map(({ step, loss, valid_loss }) => [step, loss, valid_loss]); // prettier-ignore
  assert.deepEqual(losses(out), losses(join(folder, "straight")));
});
