/** Tests the test runner: whatever a test file does to its process, the file is reported and the next one runs. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { type FileResult, runFiles } from "../runner/pool.ts";

const folder = mkdtempSync(join(tmpdir(), "runner-"));
after(() => rmSync(folder, { recursive: true }));

/** Faults, each with the name of the failure that must be reported and a pattern for its message. */
const FAULTS: Record<string, { code: string; name: string; error: RegExp }> = {
  "a test that throws": {
    code: `test("t", () => { throw new Error("outer", { cause: new Error("inner") }); });`,
    name: "t",
    error: /outer[^]*caused by: Error: inner/,
  },
  "a subtest that throws": {
    code: `test("t", async (t) => { await t.test("sub", () => { throw new Error("boom"); }); });`,
    name: "t > sub",
    error: /boom/,
  },
  "a rejection nobody handles": {
    code: `test("t", () => { Promise.reject(new Error("floating")); }); test("u", () => {});`,
    name: "(after a test had ended)",
    error: /floating/,
  },
  "an error after the test": {
    code: `test("t", () => { setTimeout(() => { throw new Error("late"); }, 20); });
           test("u", () => new Promise((resolve) => setTimeout(resolve, 60)));`,
    name: "(after a test had ended)",
    error: /late/,
  },
  "a promise that never settles": {
    code: `test("t", () => new Promise(() => {}));`,
    name: "t",
    error: /timed out after 2500ms/,
  },
  "an endless loop": { code: `test("t", () => { for (;;); });`, name: "t", error: /not done after/ },
  "process.exit(0)": {
    code: `test("t", () => { process.exit(0); });`,
    name: "t",
    error: /exited with code 0/,
  },
  "a crash": { code: `test("t", () => { process.abort(); });`, name: "t", error: /SIGABRT|exited with code/ },
  "an import that fails": {
    code: `await import("./nothing.mjs");`,
    name: "(loading the file)",
    error: /nothing\.mjs/,
  },
  "a syntax error": { code: `test("t", () => {`, name: "(loading the file)", error: /./ },
  "no test at all": { code: "", name: "(file)", error: /no test/ },
  "a hook at the end that throws": {
    code: `test("t", () => {}); after(() => { throw new Error("hook"); });`,
    name: "(a hook of the file)",
    error: /hook/,
  },
  "a suite's hook that throws": {
    code: `describe("s", () => { before(() => { throw new Error("hook"); }); test("t", () => {}); });`,
    name: "s",
    error: /hook/,
  },
  "a timer left running": {
    code: `test("t", () => { setInterval(() => {}, 1000); });`,
    name: "exit",
    error: /does not end: .*Timeout/,
  },
};

async function results(codes: readonly string[], only?: string): Promise<FileResult[]> {
  const files = codes.map((code, i) => {
    const path = join(folder, `planted-${i}.test.mjs`);
    writeFileSync(path, `import { after, before, describe, test } from "node:test";\n${code}\n`);
    return path;
  });
  const list: FileResult[] = [];
  await runFiles(files, {
    processes: 1,
    timeoutMs: 12_000,
    testMs: 2500,
    exitMs: 3000,
    ...(only !== undefined && { only }),
    onResult: (result) => list.push(result),
  });
  return list;
}

const GOOD = `test("good", () => {});`;

for (const [title, { code, name, error }] of Object.entries(FAULTS)) {
  test(`${title} is a failure, and the next file still runs`, async () => {
    const list = await results([code, GOOD]);
    const failures = list.flatMap((result) => result.failures);
    const found = failures.find((failure) => failure.name === name);
    assert.ok(found, `no failure named "${name}" in ${JSON.stringify(failures)}`);
    assert.match(found.error, error);
    const good = list.find(({ tests }) => tests.some((line) => line.includes("good")));
    assert.deepEqual([good?.passed, good?.failures.length], [1, 0]);
  });
}

test("tests, subtests and skips are counted; skips keep their reasons", async () => {
  const [result] = await results([
    `test("a", () => {});
     test("b", { skip: "no adapter" }, () => {});
     test("c", async (t) => { await t.test("d", () => {}); t.skip("not here"); });
     test("e", { todo: "later" }, () => { throw new Error("known"); });
     describe("s", () => { test("f", () => {}); });
     describe("g", { skip: "no browser" }, () => { test("h", () => {}); });`,
  ]);
  assert.deepEqual(result?.failures, []);
  assert.equal(result.passed, 3); // a, d, f
  assert.deepEqual(result.skips, [
    { name: "b", reason: "no adapter" },
    { name: "c", reason: "not here" },
    { name: "e", reason: "later" },
    { name: "g", reason: "no browser" },
  ]);
});

test("a pattern chooses tests, subtests and tests of suites by name; what it leaves out is not counted", async () => {
  const list = await results(
    [
      `test("rows", async (t) => { await t.test("rows of one", () => {}); });
       test("columns", () => { throw new Error("not chosen"); });
       describe("s", () => { test("no rows", () => { throw new Error("found"); }); test("t", () => {}); });`,
      `test("columns", () => {});`,
    ],
    "rows",
  );
  assert.deepEqual(
    list.map(({ passed, skips, failures }) => [passed, skips.length, failures.map(({ name }) => name)]),
    [
      [2, 0, ["s > no rows"]],
      [0, 0, []],
    ],
  );
});

test("the tests after one that waits for ever run", async () => {
  const [result] = await results([
    `test("t", () => new Promise(() => {}));
     describe("s", () => { test("u", () => new Promise(() => {})); test("v", () => {}); });
     test("w", { timeout: 5000 }, () => new Promise((resolve) => setTimeout(resolve, 3000)));`,
  ]);
  assert.deepEqual(
    result?.failures.map(({ name }) => name),
    ["t", "s > u"],
  );
  assert.equal(result.passed, 2);
});

test("a file's slow hooks end before the next file begins, so that its hooks do not run among them", async () => {
  const slow = (ms: number): string => `
    let closed = false;
    test("t", async () => {
      await new Promise((resolve) => setTimeout(resolve, ${ms}));
      if (closed) throw new Error("closed before its time");
    });
    after(() => { closed = true; return new Promise((resolve) => setTimeout(resolve, 600)); });`;
  const list = await results([slow(0), slow(1500)]);
  assert.deepEqual(
    list.map(({ passed, failures }) => [passed, failures]),
    [
      [1, []],
      [1, []],
    ],
  );
});
