/** Scripts for pages, bundled as a visitor's bundler would, from the packages' sources. */
import { build } from "esbuild";

/** The headers of a page that may share memory among threads. */
export const ISOLATION: Readonly<Record<string, string>> = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
};

/** The text of one script that holds `entry` and all that it imports. `alias` replaces packages by files. */
export async function bundle(entry: string, alias: Readonly<Record<string, string>> = {}): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    write: false,
    format: "esm",
    target: "es2023",
    conditions: ["@tiedlora/source"],
    alias,
    logLevel: "warning",
  });
  return outputFiles[0]!.text;
}

/** Writes `entry` and all that it imports as one script for Node, which opens one file where the modules would open many at once. */
export async function bundleForNode(entry: string, outfile: string): Promise<void> {
  await build({
    entryPoints: [entry],
    bundle: true,
    outfile,
    format: "esm",
    platform: "node",
    conditions: ["@tiedlora/source"],
    logLevel: "warning",
  });
}
