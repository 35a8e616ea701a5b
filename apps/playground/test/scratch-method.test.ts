/** One entry in the table of methods is all that a new method needs: everything else takes it from there. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";

test("an entry in the table is a method of the library, the command line, sweeps, files and the page", () => {
  const script = join(import.meta.dirname, "support/scratch-method.ts");
  const found = execFileSync(process.execPath, ["--import", "tsx", "--conditions=@tiedlora/source", script]);
  assert.deepEqual(JSON.parse(found.toString()), {
    "methods.scratch": true,
    METHOD_NAMES: true,
    methodByName: "scratch",
    LEARNING_RATES: 0.0042,
    "from a file": "scratch",
    "params --help": true,
    "train --help": true,
    "demo --help": true,
    params: 0,
    sweep: ["scratch", 0.0042],
    page: ["Scratch", "scratch", 0.0042],
    "preset of the page": true,
  });
});
