/** The CPU backend in a page: with threads where the page is cross-origin isolated, with one otherwise. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { skip } from "./support/browser.ts";
import { testFineTuning, testRecorded, testSuite, usePages } from "./support/in-page.ts";

const inPage = usePages();

test("a page has threads exactly when it is isolated, and an adapter", { skip }, async () => {
  const plain = await inPage<{ threads: number; adapter: string }>("/", "jobs.describe()");
  const isolated = await inPage<{ threads: number; cores: number }>("/isolated", "jobs.describe()");
  assert.equal(plain.threads, 1);
  assert.equal(isolated.threads > 1, isolated.cores > 1);
  assert.match(plain.adapter, /./);
});

test("where a page's policy forbids workers, it is said, and one thread computes", { skip }, async () => {
  const { threads, why, warnings, product } = await inPage<{
    threads: number;
    why: string | null;
    warnings: string[];
    product: number;
  }>("/no-workers", "jobs.threads()");
  assert.equal(product, 64 ** 3);
  assert.equal(threads, 1);
  assert.match(why ?? "", /content-security-policy has no "worker-src blob:".* it is: script-src 'self'/);
  assert.deepEqual(warnings, [`The CPU backend computes on one thread: ${why}`]);
  assert.match(await inPage("/no-workers", "jobs.unaskedThreads()"), /died: .*"worker-src blob:"/);
});

test("where memory cannot be shared, the backend says why it has one thread", { skip }, async () => {
  const { threads, why, warnings } = await inPage<{ threads: number; why: string; warnings: string[] }>(
    "/",
    "jobs.threads()",
  );
  assert.deepEqual([threads, warnings], [1, []]);
  assert.match(why, /has to be cross-origin isolated/);
});

for (const path of ["/isolated", "/"] as const) {
  testFineTuning(inPage, "cpu", path, 12);
  testSuite(inPage, "cpu", path, { parts: 2, effort: 0.25 });
}
testRecorded(inPage, "cpu", 0.3);
