/** What the records, and the cases recorded from PyTorch, cover; and that the suite made of them finds a fault and a stale exception. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Device, reference, Tensor } from "@tiedlora/core";
import { NOT_OPERATIONS, RECORDS } from "@tiedlora/test";
import { EXCEPTIONS, OPERATIONS, recorded, type RecordedCase, recordedCases } from "@tiedlora/test/recorded";
import { faultyBackend } from "./support/faulty.ts";

const CASES = recordedCases();
const LEAST = 12;

const operationsOf = ({ steps }: RecordedCase): Set<string> => new Set(steps.map(([name]) => name));

test("every method of Tensor has a record, or a reason not to", () => {
  const names = new Set(RECORDS.map(({ name }) => name));
  const methods = Object.getOwnPropertyNames(Tensor.prototype);
  const missing = methods.filter((name) => !names.has(name) && !(name in NOT_OPERATIONS));
  const how = "add one in test/src/records, or a reason to NOT_OPERATIONS in its index.ts";
  assert.equal(missing.length, 0, `no record of ${missing.join(", ")}: ${how}`);
  const stale = Object.keys(NOT_OPERATIONS).filter((name) => !methods.includes(name));
  assert.deepEqual(stale, []);
});

test("every operation has its cases, each with a name of its own", () => {
  assert.equal(new Set(CASES.map(({ id }) => id)).size, CASES.length);
  assert.ok(CASES.length >= 2000, `${CASES.length}`);
  const counts = new Map<string, number>();
  for (const one of CASES)
    for (const name of operationsOf(one)) counts.set(name, (counts.get(name) ?? 0) + 1);
  const names = new Set([...Object.keys(OPERATIONS), ...RECORDS.map(({ name }) => name)]);
  const few = [...names].filter((name) => (counts.get(name) ?? 0) < LEAST);
  const counted = few.map((name) => `${name} (${counts.get(name) ?? 0})`).join(", ");
  const how = "add to test/recorded/cases, then run test/recorded/generate.py";
  assert.equal(few.length, 0, `fewer than ${LEAST} cases of ${counted}: ${how}`);
});

test("the cases have every type, views, empty axes, special values, and gradients of both orders", () => {
  const count = (is: (one: RecordedCase) => boolean): number => CASES.filter(is).length;
  const has = (one: RecordedCase, pattern: RegExp): boolean =>
    one.inputs.some(({ values }) => values.some((word) => pattern.test(word)));
  for (const dtype of ["f16", "bf16", "i32", "u32", "bool", "f64"])
    assert.ok(
      count(({ inputs }) => inputs.some((x) => x.dtype === dtype)) >= (dtype === "f64" ? 1 : 30),
      dtype,
    );
  const moves = ["transpose", "flip", "narrow", "pad", "expand", "slice", "permute"];
  for (const move of moves) assert.ok(count((one) => operationsOf(one).has(move)) >= 60, move);
  assert.ok(count(({ inputs }) => inputs.some(({ shape }) => shape.includes(0))) >= 80, "empty");
  for (const special of [/^nan$/, /^-inf$/, /^-0$/, /e-3[89]$|e-4\d$/])
    assert.ok(count((one) => has(one, special)) >= 20, String(special));
  assert.ok(count(({ expected }) => expected.length > 1) >= 1500, "gradients");
  assert.ok(count(({ expected }) => expected.length > 2) >= 700, "second order");
  assert.ok(count(({ train }) => train !== null) >= 40, "training");
});

test("what PyTorch loses in float32 is little in nearly all cases", () => {
  const own = CASES.flatMap(({ expected }) => expected.flat().map(({ own: { all } }) => all));
  assert.ok(own.filter((error) => error > 1e-3).length < own.length / 200);
});

async function failures(suite: ReturnType<typeof recorded>, name: string): Promise<string> {
  const one = suite.cases.find((c) => c.name.startsWith(`${name}:`))!;
  const message = await one.run().then(
    () => "",
    (error: unknown) => String(error),
  );
  await suite.close();
  return message;
}

test("a planted fault fails, and a reason excuses it", async () => {
  const make = (): Device => new Device(faultyBackend("le is lt"));
  assert.match(
    await failures(recorded(make, { backend: "faulty" }), "le"),
    /le\/special: result 0, element \d+/,
  );
  const exceptions = [{ cases: /^le\//, on: /^faulty$/, reason: "a planted fault" }];
  const excused = await failures(recorded(make, { backend: "faulty", exceptions }), "le");
  assert.doesNotMatch(excused, /result 0/);
});

test("an exception that is right fails, and so would one that names no case", async () => {
  const exceptions = [{ cases: /^le\/special$/, on: /./, reason: "no reason" }];
  const found = await failures(
    recorded(() => reference(), { backend: "reference", exceptions }),
    "le",
  );
  assert.match(found, /le\/special is right: remove it/);
  for (const { cases } of EXCEPTIONS)
    assert.ok(
      CASES.some(({ id }) => cases.test(id)),
      String(cases),
    );
});
