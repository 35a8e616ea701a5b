/** Files that are refused are closed, so that a server that receives bad files keeps running. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { bundleForNode } from "../../../test/support/bundle.ts";
import { ended } from "./support/command.ts";
import { temporary } from "./support/model-directory.ts";

const skip = process.platform === "win32" && "there is no ulimit on Windows";

test("a hundred refused loads of each kind need no more than 96 file descriptors", { skip }, async () => {
  // as one file: Node opens the modules of a program at the same time, and on a busy machine more of them than there are descriptors
  const script = join(temporary(), "refused.mjs");
  await bundleForNode(join(import.meta.dirname, "support/refused.ts"), script);
  const run = [process.execPath, script, temporary()];
  const child = spawn("sh", ["-c", 'ulimit -n 96 && exec "$@"', "sh", ...run], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const { code, out, info } = await ended(child);
  assert.equal(code, 0, info);
  const refusals = JSON.parse(out) as Record<string, string>;
  assert.ok(Object.keys(refusals).length >= 10);
  assert.deepEqual(refusals, Object.fromEntries(Object.keys(refusals).map((name) => [name, "refused"])));
  assert.doesNotMatch(info, /Closing file descriptor|Warning/);
});
