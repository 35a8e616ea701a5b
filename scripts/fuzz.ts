/**
 * Gives file readers damaged files: valid ones with flipped bytes, fields of other types, absurd numbers. Each case must be
 * accepted, or refused with an error that names the file, within 2 s and 256 MB.
 *
 *   npm run fuzz                                   500 cases of every target
 *   npm run fuzz -- configs yaml --cases 10000     only these
 *   npm run fuzz -- --list                         the names of the targets
 *   npm run fuzz -- configs --seed 1 --case 4711   one case again
 *
 * The exit code is 1 if there are findings; their files are kept in .cache/fuzz.
 */
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { fuzz, type Row } from "./fuzz/run.ts";
import { TARGET_NAMES, type TargetName } from "./fuzz/targets.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    cases: { type: "string", default: "500" },
    seed: { type: "string", default: "1" },
    case: { type: "string" },
    processes: { type: "string", default: String(Math.min(2, availableParallelism())) },
    list: { type: "boolean", default: false },
  },
});

if (values.list) {
  console.log(TARGET_NAMES.join("\n"));
} else {
  const wanted = positionals.filter((name) => name !== "all");
  const unknown = wanted.find((name) => !TARGET_NAMES.some((one) => one === name));
  if (unknown !== undefined) throw new Error(`no target "${unknown}"; there are ${TARGET_NAMES.join(", ")}`);
  const targets = wanted.length === 0 ? TARGET_NAMES : (wanted as TargetName[]);
  const [seed, processes] = [count("seed", values.seed, 0), count("processes", values.processes, 1)];
  const only = values.case === undefined ? null : count("case", values.case, 0);
  const [from, to] = only === null ? [0, count("cases", values.cases, 1)] : [only, only + 1];
  const started = performance.now();
  const rows = await fuzz({
    targets,
    seed,
    from,
    to,
    processes,
    save: ".cache/fuzz",
    onFinding: (target, { number, message }, saved) =>
      console.log(
        `${target}, case ${number}: ${message}\n  files: ${saved}\n  again: npm run fuzz -- ${target} --seed ${seed} --case ${number}\n`,
      ),
  });
  console.log(table(rows));
  console.log(`seed ${seed}, ${((performance.now() - started) / 1000).toFixed(0)} s`);
  process.exitCode = rows.some(({ findings }) => findings > 0) ? 1 : 0;
}

function count(name: string, text: string, min: number): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < min)
    throw new Error(`--${name} ${text} given; expected a whole number of at least ${min}`);
  return value;
}

function table(rows: readonly Row[]): string {
  const header = ["target", "cases", "accepted", "named errors", "findings", "slowest", "peak memory"];
  const lines = rows.map((row) => [
    row.target,
    ...[row.cases, row.accepted, row.named, row.findings].map(String),
    `${row.ms.toFixed(0)} ms`,
    `${(row.bytes / 2 ** 20).toFixed(0)} MB`,
  ]);
  const widths = header.map((name, i) => Math.max(name.length, ...lines.map((line) => line[i]!.length)));
  const shown = (cells: readonly string[]): string =>
    `| ${cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join(" | ")} |`;
  const rule = `| ${widths.map((width, i) => (i === 0 ? "-".repeat(width) : `${"-".repeat(width - 1)}:`)).join(" | ")} |`;
  return [shown(header), rule, ...lines.map(shown)].join("\n");
}
