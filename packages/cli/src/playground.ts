/** `tiedlora playground`: serves the page that trains in the browser. */
import { existsSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { BASE_DIRECTORY } from "@tiedlora/experiments/node";
import { pageMounts, serveStatic } from "./serve/static.ts";
import { whole } from "./options.ts";
import type { Output } from "./output.ts";

/** The folders of the built page: in a checkout, and in the published package. */
const PLACES = ["../../../apps/playground/dist/", "../assets/playground/"].map((path) =>
  fileURLToPath(new URL(path, import.meta.url)),
);

export function addPlayground(program: Command, output: Output): void {
  program
    .command("playground")
    .description("serve the page that adapts a model in your browser")
    .option("--port <n>", "the port; 0 takes any that is free", whole(0), 8080)
    .option(
      "--host <name>",
      "the address to listen on; 0.0.0.0 lets everybody on your network open the page",
      "127.0.0.1",
    )
    .addHelpText("after", "\nExample:\n  tiedlora playground --port 3000")
    .action(async ({ port, host }: { readonly port: number; readonly host: string }) => {
      const folder = PLACES.find((place) => existsSync(`${place}index.html`));
      if (folder === undefined)
        throw new Error("the page is not built in this checkout; build it: npm run playground:build");
      const mounts = [...pageMounts(folder), { path: "/base/", folder: BASE_DIRECTORY }];
      const server = await serveStatic(mounts, { port, host }).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== "EADDRINUSE") throw error;
        throw new Error(`port ${port} is taken; give another: tiedlora playground --port ${port + 1}`);
      });
      const address = server.address() as AddressInfo;
      output.out(`the playground is at http://localhost:${address.port}/ (Ctrl-C ends it)`);
      const signal = await new Promise<string>((resolve) => {
        for (const name of ["SIGINT", "SIGTERM"] as const) process.once(name, () => resolve(name));
      });
      output.info(`${signal}: the server stops`);
      server.close();
      server.closeAllConnections();
    });
}
