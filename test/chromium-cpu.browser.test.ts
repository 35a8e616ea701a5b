/** The CPU backend in a page: with threads where the page is cross-origin isolated, with one otherwise. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { skip } from "./support/browser.ts";
import { testFineTuning, testSuite, usePages } from "./support/in-page.ts";

const inPage = usePages();

test("a page has threads exactly when it is isolated, and an adapter", { skip }, async () => {
  const plain = await inPage<{ threads: number; adapter: string }>("/", "jobs.describe()");
  const isolated = await inPage<{ threads: number; cores: number }>("/isolated", "jobs.describe()");
  assert.equal(plain.threads, 1);
  assert.equal(isolated.threads > 1, isolated.cores > 1);
  assert.match(plain.adapter, /./);
});

for (const path of ["/isolated", "/"] as const) {
  testFineTuning(inPage, "cpu", path, 12);
  testSuite(inPage, "cpu", path, { parts: 2, effort: 0.25 });
}
