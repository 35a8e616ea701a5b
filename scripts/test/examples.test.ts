/** Every file of examples/ runs to its end, and asserts by itself what it shows. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { test } from "node:test";

const root = resolve(import.meta.dirname, "../..");
const TIMEOUT_MS = 180_000;

for (const file of readdirSync(join(root, "examples")).filter((name) => name.endsWith(".ts"))) {
  test(`examples/${file}`, () => {
    const args = [
      join(root, "node_modules/tsx/dist/cli.mjs"),
      "--conditions=@tiedlora/source",
      join(root, "examples", file),
    ];
    const result = spawnSync(process.execPath, args, { cwd: root, encoding: "utf8", timeout: TIMEOUT_MS });
    assert.equal(result.status, 0, `${result.error?.message ?? ""}\n${result.stdout}\n${result.stderr}`);
  });
}
