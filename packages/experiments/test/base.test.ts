/** The embedded base models: their layouts, their sizes, and how well they know the text of which they were made. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { cpu } from "@tiedlora/backend-cpu";
import { loadPretrained } from "@tiedlora/models/node";
import { embeddedBase } from "../src/node/base.ts";
import { document } from "../src/toy-tasks/index.ts";

/** The seed of the text that neither model has seen; their READMEs tell its loss. */
const VALIDATION = 2;

for (const [name, layout, loss] of [
  ["base", "llama", "0.650"],
  ["base-gpt2", "gpt2", "0.665"],
] as const) {
  test(`${name} is a small ${layout} that knows the text of its making, as its README says`, async () => {
    const directory = embeddedBase(name)!;
    const bytes = readdirSync(directory).reduce((sum, file) => sum + statSync(join(directory, file)).size, 0);
    assert.ok(bytes < 4e6, `${bytes} bytes`);
    assert.match(readFileSync(join(directory, "README.md"), "utf8"), new RegExp(`${loss} at the end`));
    const device = await cpu();
    const { model, tokenizer } = await loadPretrained(directory, { device });
    assert.equal(model.config.modelType, layout);
    let at = 0;
    const inputIds = Array.from({ length: 48 }, () => {
      const row: number[] = []; // begins with a document, as in training
      while (row.length < 97) row.push(...tokenizer.encode(document(VALIDATION, at++)), tokenizer.eosId!);
      return row.slice(0, 97);
    });
    const found = await model.loss({ inputIds }).item();
    assert.ok(Math.abs(found - Number(loss)) < 0.03, `a loss of ${found}`);
    device.close();
  });
}

test("other names are no embedded models", () => {
  assert.equal(embeddedBase("base-gpt3"), null);
});
