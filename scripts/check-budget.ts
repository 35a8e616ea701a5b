/**
 * Checks the size of the core: tensors, gradients and their compiler must stay within 5,100 lines, and the files for an
 * afternoon of reading within 2,000. All lines count, comments included, since they are read too.
 *
 *   npm run check     (or: npx tsx scripts/check-budget.ts --list)
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";

const SOURCES = resolve(import.meta.dirname, "../packages/core/src");
/** 5,000, and what it takes that plans are made for further lengths without planning: recorded comparisons, and keys apart from sizes. */
const BUDGET = 5100;
const READING = [
  "graph.ts",
  "shape.ts",
  "tensor.ts",
  "realize.ts",
  "grad.ts",
  "compile/stored.ts",
  "compile/fuse.ts",
  "plan.ts",
];
const READING_BUDGET = 2000;

/** The number of lines of each source of the core, by path. */
const lines = new Map(
  readdirSync(SOURCES, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .map((file) => [
      file.replaceAll("\\", "/"),
      readFileSync(join(SOURCES, file), "utf8").split("\n").length - 1,
    ]),
);

if (process.argv.includes("--list")) {
  for (const [file, n] of [...lines].sort((a, b) => b[1] - a[1]))
    console.log(`${String(n).padStart(6)}  ${file}`);
}
const total = [...lines.values()].reduce((sum, n) => sum + n, 0);
const missing = READING.filter((file) => !existsSync(join(SOURCES, file)));
const reading = READING.reduce((sum, file) => sum + (lines.get(file) ?? 0), 0);
console.log(`the core: ${total} of ${BUDGET} lines; the reading path: ${reading} of ${READING_BUDGET}`);
const faults = [
  missing.length > 0
    ? `the reading path names ${missing.join(", ")}, which is not there: mend READING in this script`
    : "",
  total > BUDGET || reading > READING_BUDGET
    ? "the core is over its budget: move out of it what only some users need, or say it shorter (--list shows the files)"
    : "",
].filter((fault) => fault !== "");
for (const fault of faults) console.error(`check-budget: ${fault}`);
if (faults.length > 0) process.exitCode = 1;
