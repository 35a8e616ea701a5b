/**
 * A grid of the paper's eight methods with fixed seeds gives the same table again: bit for bit on a second run and on another Node, and
 * up to a stated tolerance on WebGPU.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, suite, test } from "node:test";
import { fileURLToPath } from "node:url";
import { parse } from "csv-parse/sync";
import { skip } from "../../test/support/gpu.ts";
import { commandProgram } from "../../test/support/programs.ts";
import { installRuntimes } from "../packages/runtimes.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "tiedlora-again-"));
after(() => {
  rmSync(folder, { recursive: true });
});

const GRID = `name: again
on: { model: base, tasks: [arithmetic-1, translation-2], seq: 128 }
out: again
vary: { method: [lora, vera, tl1, tl2, tl3, tl4, tl5, tl6], rank: [2, 8], seed: [0, 1] }
train: { target: qkv, steps: 12, batch: 8, warmup: 2 }
evaluate: { every: 6, train: 200, valid: 16, test: 12 }
`;
const RUNS = 2 + 8 * 2 * 2 * 2;

/** The clock, and the device's name. */
const MEASURED = ["seconds", "tokens_per_second", "duration", "device"];

type Row = Readonly<Record<string, string>>;

/** The rows of runs.csv of one sweep, without what a clock says. */
function tableOf(name: string, node: string = process.execPath, backend: string = "cpu"): Row[] {
  const [file, out] = [join(folder, `${name}.yaml`), join(folder, name)];
  writeFileSync(file, GRID);
  const run = (...argv: string[]): void => {
    execFileSync(node, [...commandProgram(), ...argv], { cwd: ROOT, stdio: ["ignore", "ignore", "pipe"] });
  };
  run("sweep", file, "--out", out, "--backend", backend);
  run("report", out);
  const rows: Row[] = parse(readFileSync(join(out, "runs.csv")), { columns: true });
  assert.equal(rows.length, RUNS);
  return rows.map((row) =>
    Object.fromEntries(Object.entries(row).filter(([key]) => !MEASURED.includes(key))),
  );
}

suite("a grid with fixed seeds", () => {
  const first = tableOf("first");

  test("gives the same table on a second run", () => {
    assert.deepEqual(tableOf("second"), first);
    const losses = new Set(first.map((row) => row["test_loss"]));
    assert.ok(losses.size > RUNS / 2, "the runs differ from each other"); // an equal table says something
  });

  const wrong = process.platform === "linux" && process.arch === "x64" ? false : "needs linux-x64";
  test("gives the same table on another Node", { skip: wrong }, () => {
    const other = process.versions.node.startsWith("24.") ? "node20" : "node24";
    assert.deepEqual(tableOf("other", join(installRuntimes(ROOT), other, "bin/node")), first);
  });

  test("gives nearly the same table on WebGPU", { skip }, () => {
    const near = tableOf("webgpu", process.execPath, "webgpu");
    for (const [i, row] of near.entries()) {
      const [ours, theirs] = [row, first[i]!].map((one) => Number(one["test_loss"])) as [number, number];
      assert.equal(row["id"], first[i]!["id"]);
      assert.ok(Math.abs(ours - theirs) <= 1e-4 * theirs, `${row["id"]}: ${ours} and ${theirs}`);
    }
  });
});
