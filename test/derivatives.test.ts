/** Every derivative rule against differences in double precision: first derivatives, and derivatives of those. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { reference } from "@tiedlora/core";
import { checkDerivative, property, RECORDS, RULES } from "@tiedlora/test";
import fc from "fast-check";
import { part } from "./support/effort.ts";
// The table itself is no part of the API.
import { VJP } from "../packages/core/src/grad.ts";

/** Random cases per record, in CI 200. Every rule is behind at least one record. */
const CASES = Math.ceil(part(200));
/** Elements of an input: a wrong rule shows on few as well as on many. */
const LIMIT = 12;

for (const record of RECORDS.filter(({ gradient }) => gradient === "yes")) {
  for (const order of [1, 2] as const) {
    test(`${record.name}: ${order === 1 ? "gradient" : "gradient of the gradient"} against differences`, async () => {
      const device = reference();
      const cases = fc.tuple(record.cases({ limit: LIMIT, zeros: true }), fc.nat());
      const runs = order === 1 ? CASES : Math.ceil(CASES / 2);
      await property(cases, ([one, seed]) => checkDerivative(device, record, one, seed, order), { runs });
      device.close();
    });
  }
}

test("every operation of the graph says which records check its rule, or why none does", () => {
  const names = new Set(RECORDS.filter(({ gradient }) => gradient === "yes").map(({ name }) => name));
  for (const [op, coverage] of Object.entries(RULES)) {
    const hasRule = VJP[op as keyof typeof VJP] !== "none";
    if ("none" in coverage)
      assert.ok(
        !hasRule || op === "pick" || op === "dequantize",
        `${op} has a rule, but no record checks it`,
      );
    else
      for (const name of coverage)
        assert.ok(
          names.has(name),
          `${op}: RULES names a record "${name}", and test/src/records has none with a gradient`,
        );
    if (!hasRule) assert.ok("none" in coverage, `${op} has no rule, but names records`);
  }
});
