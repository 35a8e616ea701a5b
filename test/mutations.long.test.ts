/** The derivative checks find a fault in any rule: the mutation script, whose table is the test's output. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join, resolve } from "node:path";
import { test } from "node:test";

test("every fault in a derivative rule is found", () => {
  const root = resolve(import.meta.dirname, "..");
  const tsx = join(root, "node_modules/tsx/dist/cli.mjs");
  const script = join(root, "scripts/mutate-vjp.ts");
  const result = spawnSync(process.execPath, [tsx, "--conditions=@tiedlora/source", script], {
    cwd: root,
    encoding: "utf8",
  });
  console.log(result.stdout);
  assert.equal(result.status, 0, result.stderr);
});
