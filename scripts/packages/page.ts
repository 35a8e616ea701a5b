/** Runs the packed packages in a page that Vite builds, in Chromium. */
import { spawnSync } from "node:child_process";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { serveStatic } from "../../packages/cli/src/serve/static.ts";
import { launch, skip } from "../../test/support/browser.ts";
import { type Losses, report, type Run } from "./runtimes.ts";

/** Builds and opens the page in `consumer`. Without Chromium, which CI has, prints so and runs nothing. */
export async function runInChromium(consumer: string, programs: string): Promise<Run[]> {
  const vite = join(programs, "vite/bin/vite.js");
  const built = spawnSync(process.execPath, [vite, "build", "--logLevel", "error"], {
    cwd: consumer,
    encoding: "utf8",
  });
  if (built.status !== 0) throw new Error(`vite build failed:\n${built.stdout}${built.stderr}`);
  if (skip !== false) {
    console.log(`Chromium: the page was built and not run: ${skip}`);
    return [];
  }
  const folder = join(consumer, "dist");
  const server = await serveStatic([{ path: "/", folder }], { port: 0 });
  const browser = await launch();
  try {
    const runs: Run[] = [];
    for (const backend of ["cpu", "webgpu"] as const) {
      const page = await browser.newPage();
      await page.goto(`http://localhost:${(server.address() as AddressInfo).port}/#${backend}`);
      const losses = await page.evaluate<Losses>("losses");
      runs.push(report({ runtime: `Chromium ${browser.version()}`, engine: "V8", backend, losses }));
      await page.close();
    }
    return runs;
  } finally {
    await browser.close();
    server.close();
    server.closeAllConnections();
  }
}
