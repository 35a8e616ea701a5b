/** Imports the test files that the parent names, one after the other, until it says that there are no more. */
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import fc from "fast-check";

const HOOKS_MS = 200;

// The files' tests have a limit each, unless they name one, so that the tests after one that waits for ever run. A module that imports
// node:test by name sees what is here when it is first imported.
const nodeTest = createRequire(import.meta.url)("node:test");
const { after, beforeEach, test } = nodeTest;
const timeout = Number(process.argv[2]);
// With a seed, the random cases of every file are the same in every run.
const seed = process.env["TIEDLORA_SEED"];
if (seed !== undefined) fc.configureGlobal({ ...fc.readConfigureGlobal(), seed: Number(seed) });
nodeTest.test = Object.assign((name, ...rest) => {
  const run = rest.pop();
  return test(name, { timeout, ...rest[0] }, run);
}, test);

// Sent at once, so that the parent knows which test it is that blocks or crashes this process.
beforeEach((context) => process.send?.({ type: "enter", name: context.fullName ?? context.name }));

process.on("message", async ({ file, end }) => {
  if (file === undefined) {
    process.channel?.unref(); // nothing but what a test left open keeps this process alive now
    const report = () => process.send?.({ type: "open", resources: process.getActiveResourcesInfo() });
    setTimeout(report, 2000).unref();
    return;
  }
  // Tests of the root run in order, and its hooks once there are no more (on some versions of Node only at exit).
  let begun = false;
  after(() => {
    begun = true; // ahead of the file's own hooks, which are registered later
  });
  try {
    await import(pathToFileURL(file).href);
  } catch (error) {
    process.send?.({ type: "load-error", error: error?.stack ?? String(error) });
  }
  const hooks = new Promise((done) => after(() => done()));
  await test(`${end} (tests)`, () => undefined);
  await Promise.race([hooks, sleep(HOOKS_MS)]);
  if (begun) await hooks; // closing a browser takes its time; hooks that the next file adds meanwhile would run with these
  void test(end, () => undefined); // its report tells the parent
});
