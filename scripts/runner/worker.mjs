/** Imports the test files that the parent names, one after the other, until it says that there are no more. */
import { beforeEach, test } from "node:test";
import { pathToFileURL } from "node:url";

// Sent at once, so that the parent knows which test it is that blocks or crashes this process.
beforeEach((context) => process.send?.({ type: "enter", name: context.fullName ?? context.name }));

process.on("message", async ({ file, end }) => {
  if (file === undefined) {
    process.channel?.unref(); // nothing but what a test left open keeps this process alive now
    const report = () => process.send?.({ type: "open", resources: process.getActiveResourcesInfo() });
    setTimeout(report, 2000).unref();
    return;
  }
  try {
    await import(pathToFileURL(file).href);
  } catch (error) {
    process.send?.({ type: "load-error", error: error?.stack ?? String(error) });
  }
  // Tests of the root run in order: once this one has, all of the file's have. Its report tells the parent.
  void test(end, () => undefined);
});
