/** Tests the fuzzer, which must find planted faults, and file readers, which must accept each case or name its fault. */
import assert from "node:assert/strict";
import { availableParallelism } from "node:os";
import { test } from "node:test";
import { FileError } from "@tiedlora/core";
import { makeCase } from "../fuzz/case.ts";
import { judge } from "../fuzz/judge.ts";
import { fuzz } from "../fuzz/run.ts";
import { Unsound, utf8 } from "../fuzz/target.ts";
import { part } from "../../test/support/effort.ts";
import { TARGET_NAMES } from "../fuzz/targets.ts";

const CASES = Math.ceil(part(500));

test("every case of every target is accepted, or refused by an error that names the file", async () => {
  const found: string[] = [];
  const rows = await fuzz({
    targets: TARGET_NAMES,
    seed: 1,
    from: 0,
    to: CASES,
    processes: Math.min(2, availableParallelism()),
    onFinding: (target, { number, message }) =>
      found.push(`npm run fuzz -- ${target} --seed 1 --case ${number}: ${message}`),
  });
  assert.deepEqual(found, []);
  for (const { target, cases, accepted, named } of rows) {
    assert.equal(cases, CASES, target);
    assert.ok(
      accepted >= CASES / 25 && named > CASES / 10,
      `${target}: ${accepted} accepted, ${named} named`,
    );
  }
});

test("a case is the same whenever it is made", async () => {
  const target = {
    seed: () => new Map([["a.json", utf8('{"a":[1,2,{"b":"c"}]}')]]),
    read: () => Promise.resolve(),
  };
  const text = async (number: number): Promise<string> =>
    Buffer.concat([...(await makeCase("x", target, 3, number)).files.values()]).toString("hex");
  const [first, again] = [[], []] as [string[], string[]];
  for (let i = 0; i < 50; i++) first.push(await text(i));
  for (let i = 49; i >= 0; i--) again.unshift(await text(i));
  assert.deepEqual(again, first);
  assert.ok(new Set(first).size > 40, "cases are alike");
});

const bad = (message: string): FileError => new FileError("a.json", null, message);

for (const [what, thrown, valid, outcome] of [
  ["nothing thrown", undefined, true, "accepted"],
  ["an error that names the file", bad("a.json: found 1; expected 2"), false, "named"],
  ["a valid file that is refused", bad("a.json: found 1; expected 2"), true, "finding"],
  ["an error of the engine", new TypeError("x is not a function"), false, "finding"],
  ["an error without a file", new Error("wrong"), false, "finding"],
  [
    "an engine's message inside of an error that names the file",
    bad("a.json: x.map is not a function"),
    false,
    "finding",
  ],
  ["something accepted that is not sound", new Unsound("it is NaN"), false, "finding"],
  ["what is no error", null, false, "finding"],
] as const) {
  test(`judged: ${what}`, () => assert.equal(judge(thrown, valid).outcome, outcome));
}
