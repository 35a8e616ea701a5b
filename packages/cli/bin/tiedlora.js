#!/usr/bin/env node
// Starts the command line. From a checkout of the repository it first compiles what has changed; an installed package is
// compiled already.
import { existsSync } from "node:fs";
import * as module from "node:module";
import { join, resolve } from "node:path";

// V8's code of the command's own modules; Node 22 and later keep it. Child processes inherit the variable.
const flags = process.argv.slice(2);
const given =
  flags.find((_, i) => flags[i - 1] === "--cache") ??
  flags.find((flag) => flag.startsWith("--cache="))?.slice(8);
const cache = given ?? process.env.TIEDLORA_CACHE;
if (cache && module.enableCompileCache !== undefined) {
  process.env.NODE_COMPILE_CACHE ??= join(resolve(cache), "v8");
  module.enableCompileCache(process.env.NODE_COMPILE_CACHE);
}

const ready = new URL("../../../scripts/ready.mjs", import.meta.url);
const sources = new URL("../tsconfig.json", import.meta.url); // not in the published package
if (existsSync(sources) && existsSync(ready)) {
  (await import(ready.href)).ready({ build: true });
}
const { main } = await import("../dist/main.js");
process.exitCode = await main(process.argv.slice(2));
