/** `--cache`: the command keeps plans and code in a folder, and the next start finds all of them there. */
import assert from "node:assert/strict";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { tiedlora } from "./support/command.ts";
import { temporary, writeExamples, writeModel } from "./support/model-directory.ts";

const folder = temporary();
await writeModel(join(folder, "model"));
writeExamples(join(folder, "train.jsonl"));
const cache = join(folder, "cache");
const before = process.env["TIEDLORA_CACHE"];
after(() => {
  if (before === undefined) delete process.env["TIEDLORA_CACHE"];
  else process.env["TIEDLORA_CACHE"] = before;
});

/** The files of the cache, with when they were written. */
const files = (): string[] =>
  readdirSync(cache).map((name) => `${name} ${statSync(join(cache, name)).mtimeMs}`);

async function losses(out: string, ...more: string[]): Promise<unknown[]> {
  const data = ["--model", join(folder, "model"), "--data", join(folder, "train.jsonl")];
  const { code, out: lines, info } = await tiedlora("train", ...data, "--out", join(folder, out), ..."--steps 1 --batch 2 --seq 32 --rank 2 --backend cpu --no-revectorize --json".split(" "), ...more); // prettier-ignore
  assert.equal(code, 0, info);
  return lines.trim().split("\n").map((line) => (JSON.parse(line) as { loss?: number }).loss); // prettier-ignore
}

test("a second start of the same training writes nothing to the cache, whether a flag or the environment names it", async () => {
  delete process.env["TIEDLORA_CACHE"];
  const first = await losses("first", "--cache", cache);
  const kept = files();
  for (const kind of ["plan-", "code-"]) assert.ok(kept.some((name) => name.startsWith(kind)));
  process.env["TIEDLORA_CACHE"] = cache;
  assert.deepEqual(await losses("second"), first);
  assert.deepEqual(files(), kept);
});
