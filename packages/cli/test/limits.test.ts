/** `train` with more than the memory holds. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, suite, test } from "node:test";
import { tiedlora } from "./support/command.ts";
import { temporary, writeModel } from "./support/model-directory.ts";

const folder = temporary();
const model = join(folder, "model");

suite("train at its limits", () => {
  before(async () => {
    await writeModel(model);
  });

  test("running out of memory says what needs less", async () => {
    const many = join(folder, "many.txt");
    writeFileSync(many, "ab\n".repeat(200_000));
    const flags = "--batch 200000 --seq 64 --backend cpu --steps 1".split(" ");
    const { code, info } = await tiedlora("train", "--model", model, "--data", many, "--out", join(folder, "memory"), ...flags); // prettier-ignore
    assert.equal(code, 1, info);
    assert.match(info, /out of memory.*smaller --batch.*smaller --seq, or --checkpointing/s);
  });
});
