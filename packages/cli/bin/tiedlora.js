#!/usr/bin/env node
// Starts the command line. From a checkout of the repository it first compiles what has changed; an installed package is
// compiled already.
import { existsSync } from "node:fs";

const ready = new URL("../../../scripts/ready.mjs", import.meta.url);
const sources = new URL("../tsconfig.json", import.meta.url); // not in the published package
if (existsSync(sources) && existsSync(ready)) {
  (await import(ready.href)).ready({ build: true });
}
const { main } = await import("../dist/main.js");
process.exitCode = await main(process.argv.slice(2));
