/** Tests that every file of examples/ and lessons/ runs to its end. The files contain their own assertions. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { typescriptProgram } from "../../test/support/programs.ts";

const root = resolve(import.meta.dirname, "../..");
const TIMEOUT_MS = 180_000;

const filesOf = (folder: string): string[] =>
  readdirSync(join(root, folder))
    .filter((name) => name.endsWith(".ts"))
    .map((name) => `${folder}/${name}`);

for (const file of [...filesOf("examples"), ...filesOf("lessons")]) {
  test(file, () => {
    const args = typescriptProgram(join(root, file));
    const result = spawnSync(process.execPath, args, { cwd: root, encoding: "utf8", timeout: TIMEOUT_MS });
    assert.equal(result.status, 0, `${result.error?.message ?? ""}\n${result.stdout}\n${result.stderr}`);
  });
}

test("a method of examples/methods is declared in at most fifteen lines", () => {
  const files = filesOf("examples/methods");
  assert.equal(files.length, 12);
  for (const file of files) {
    const declaration = /defineMethod\(\{[\s\S]*?^\}\);/m.exec(readFileSync(join(root, file), "utf8"))?.[0];
    assert.ok(declaration !== undefined && declaration.split("\n").length <= 15, file);
  }
});

test("a lesson is one file of fewer than 150 lines that says how to run it, and needs no Node", () => {
  for (const file of filesOf("lessons")) {
    const text = readFileSync(join(root, file), "utf8");
    assert.ok(text.split("\n").length - 1 < 150, `${file} is too long`);
    assert.ok(text.includes(`npx tsx --conditions=@tiedlora/source ${file}`), `${file}: no command`);
    assert.doesNotMatch(text, /from "node:|\bprocess\./, `${file} would not run in a page`);
  }
  assert.equal(filesOf("lessons").length, 9);
});
