/** `train` at its limits: each method there is, and more than the memory holds. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, suite, test } from "node:test";
import { METHOD_NAMES } from "tiedlora";
import { type Result, tiedlora } from "./support/command.ts";
import { temporary, writeExamples, writeModel } from "./support/model-directory.ts";

const folder = temporary();
const model = join(folder, "model");
const data = join(folder, "train.jsonl");

suite("train at its limits", () => {
  before(async () => {
    await writeModel(model);
    writeExamples(data);
  });

  for (const method of METHOD_NAMES) {
    test(`takes ${method}`, async () => {
      const flags = "--steps 1 --batch 2 --seq 32 --rank 2 --lr 0.01 --backend reference".split(" ");
      if (method === "trained-tokens") flags.push("--target", "embed_tokens");
      const out = join(folder, method);
      const { code, info }: Result = await tiedlora("train", "--model", model, "--data", data, "--out", out, "--method", method, ...flags); // prettier-ignore
      assert.equal(code, 0, info);
    });
  }

  test("running out of memory says what needs less", async () => {
    const many = join(folder, "many.txt");
    writeFileSync(many, "ab\n".repeat(200_000));
    const flags = "--batch 200000 --seq 64 --backend cpu --steps 1".split(" ");
    const { code, info } = await tiedlora("train", "--model", model, "--data", many, "--out", join(folder, "memory"), ...flags); // prettier-ignore
    assert.equal(code, 1, info);
    assert.match(info, /out of memory.*smaller --batch.*smaller --seq, or --checkpointing/s);
  });
});
