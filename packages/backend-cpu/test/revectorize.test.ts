/** When 256-bit vectors are used: the verdict of a self-check, and the file that keeps it. */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { cpu, CpuBackend, revectorization } from "@tiedlora/backend-cpu";
import { defaultTile } from "../src/device/platform.ts";
import { resultsWith } from "../src/revectorize/self-check.ts";
import { type Findings, type Surroundings, verdict } from "../src/revectorize/verdict.ts";

const folder = mkdtempSync(join(tmpdir(), "revectorize-"));
after(() => rmSync(folder, { recursive: true }));

const PLAIN: Findings = { results: { "a product": 7, softmax: 9 }, wideMs: 3, narrowMs: 2 };
const WIDE: Findings = { ...PLAIN, wideMs: 1, narrowMs: 2 };

/** Processes that find `plain` and `wide`, and the number of times that they ran. */
function processes(plain: Findings | Error, wide: Findings | Error): Surroundings["find"] & { runs: number } {
  const find = Object.assign(
    (revectorize: boolean): Promise<Findings> => {
      find.runs++;
      const found = revectorize ? wide : plain;
      return found instanceof Error ? Promise.reject(found) : Promise.resolve(found);
    },
    { runs: 0 },
  );
  return find;
}

const judged = (plain: Findings | Error, wide: Findings | Error): Promise<{ on: boolean; why: string }> =>
  verdict({ find: processes(plain, wide), file: null });

test("equal bits and faster products turn 256-bit vectors on", async () => {
  const { on, why } = await judged(PLAIN, WIDE);
  assert.equal(on, true);
  assert.match(why, /equal bits in 2 kinds of kernels, and products are 2\.00 times as fast/);
});

test("one kernel with other bits turns them off, by name", async () => {
  const { on, why } = await judged(PLAIN, { ...WIDE, results: { ...WIDE.results, softmax: 10 } });
  assert.equal(on, false);
  assert.match(why, /results of softmax/);
});

test("a process that crashes with them turns them off; one that fails without them is no verdict to keep", async () => {
  const file = join(folder, "crash.json");
  const crash = await verdict({ find: processes(PLAIN, new Error("SIGSEGV")), file });
  assert.equal(crash.on, false);
  assert.match(crash.why, /SIGSEGV/);
  assert.match(readFileSync(file, "utf8"), /SIGSEGV/);

  const other = join(folder, "other.json");
  const failed = await verdict({ find: processes(new Error("exit code 1"), WIDE), file: other });
  assert.equal(failed.on, false);
  assert.match(failed.why, /could not be checked: exit code 1/);
  assert.equal(readdirSync(folder).includes("other.json"), false);
});

test("a processor that gains nothing keeps 128-bit vectors", async () => {
  const { on, why } = await judged(PLAIN, { ...WIDE, wideMs: 2.1 });
  assert.equal(on, false);
  assert.match(why, /0\.95 times as fast/);
});

test("a verdict is kept: the second process checks nothing, a damaged file is checked again", async () => {
  const file = join(folder, "deep", "kept.json");
  const first = processes(PLAIN, WIDE);
  const made = await verdict({ find: first, file });
  const second = processes(new Error("not asked"), new Error("not asked"));
  assert.deepEqual(await verdict({ find: second, file }), made);
  assert.deepEqual([first.runs, second.runs], [2, 0]);
  for (const damaged of ["", "{", "[]", '{"on": "yes"}']) {
    writeFileSync(file, damaged);
    const again = processes(PLAIN, WIDE);
    assert.deepEqual(await verdict({ find: again, file }), made);
    assert.equal(again.runs, 2, damaged);
  }
  assert.deepEqual(readdirSync(join(folder, "deep")), ["kept.json"]);
});

test("a folder that cannot be written costs a check each time, not the verdict", async () => {
  const file = join(folder, "a-file", "kept.json");
  writeFileSync(join(folder, "a-file"), "");
  assert.equal((await verdict({ find: processes(PLAIN, WIDE), file })).on, true);
});

test("the tile for 256-bit vectors gives the bits of the one for 128-bit vectors, in every kernel of the check", async () => {
  assert.deepEqual(await resultsWith(defaultTile(true)), await resultsWith(defaultTile(false)));
});

test(`"auto" follows the verdict on this engine`, async () => {
  const { on, available } = await revectorization();
  assert.equal(available, Number.parseInt(process.versions.v8) >= 13);
  const device = await cpu({ threads: 1, revectorize: "auto" });
  assert.ok(device.backend instanceof CpuBackend);
  assert.equal(device.backend.revectorized, on);
  device.close();
});
