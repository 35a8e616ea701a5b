/** `tiedlora report`: the findings of a sweep, as one HTML file and as tables. */
import { basename, resolve } from "node:path";
import { type Command, InvalidArgumentError } from "commander";
import {
  FIGURE_FORMATS,
  type FigureFormat,
  type WrittenReport,
  writeReport,
} from "@tiedlora/experiments/node";
import { METHOD_NAMES } from "tiedlora";
import { choiceText, chosenText, type Group } from "@tiedlora/experiments";
import { checkOut } from "./checks.ts";
import { checkPath } from "./load.ts";
import { path } from "./options.ts";
import { paint, type Output } from "./output.ts";

interface ReportCommand {
  readonly out?: string;
  readonly title?: string;
  readonly force?: true;
  readonly against?: { readonly method: string; readonly rank: number };
  readonly samples: boolean;
  readonly figures?: readonly FigureFormat[] | true;
}

export function addReport(program: Command, output: Output): void {
  program
    .command("report")
    .description("write the report of a sweep: one HTML file with plots and tables, and CSV")
    .argument("<dir>", "the folder of a sweep's results")
    .option(
      "--out <dir>",
      "where report.html, runs.csv, summary.csv and comparisons.csv are written (default: the same folder)",
      path,
    )
    .option(
      "--force",
      "replace these files if they exist in --out; in the sweep's own folder they always are",
    )
    .option(
      "--figures [formats]",
      "also write a figure for each task, and the tables in LaTeX: svg (the default), pdf, or svg,pdf",
      figureFormats,
    )
    .option(
      "--against <method:rank>",
      "compare all methods and ranks with this one, by paired bootstrap (default: lora at the rank nearest to 8)",
      variant,
    )
    .option("--no-samples", "leave out the examples, which quote the data and what models wrote")
    .option("--title <text>", "the report's heading (default: the folder's name)")
    .addHelpText("after", "\nExample:\n  tiedlora report runs/paper-grid --title 'The paper on a laptop'")
    .action(async (directory: string, options: ReportCommand) => {
      await checkPath("report", directory, "directory", "give the folder of a sweep");
      if (options.out !== undefined) await checkOut(options.out);
      const title = options.title ?? basename(resolve(directory));
      const out = options.out ?? directory;
      const figures = options.figures === true ? (["svg"] as const) : (options.figures ?? []);
      const report = await writeReport(directory, out, {
        title,
        force: options.force === true || options.out === undefined,
        against: options.against,
        samples: options.samples,
        figures,
      });
      for (const one of report.summary.smallest) output.info(smallestText(one));
      const choice = choiceText(report.summary);
      if (choice !== null) output.info(choice);
      if (report.search !== null) output.info(searchText(report.search));
      for (const note of notesOn(report)) output.info(`${paint("yellow", "note:")} ${note}`);
      if (report.failures > 0) output.info(`${report.failures} runs failed; they are listed in the report`);
      for (const file of report.files) output.out(file);
    });
}

/** "lora:8". Throws if it is no method with a rank. */
function variant(given: string): { method: string; rank: number } {
  const [, method, rank] = /^([a-z\d-]+):(\d+)$/.exec(given) ?? [];
  if (method !== undefined && METHOD_NAMES.some((name) => name === method))
    return { method, rank: Number(rank) };
  throw new InvalidArgumentError(`"${given}" is not a method with a rank; expected one such as lora:8.`);
}

/** A list of formats, separated by commas. Throws if there is no such format. */
function figureFormats(given: string): readonly FigureFormat[] {
  return given.split(",").map((name) => {
    const format = FIGURE_FORMATS.find((one) => one === name.trim());
    if (format !== undefined) return format;
    throw new InvalidArgumentError(`"${name}" is not a format; expected ${FIGURE_FORMATS.join(", ")}, or both with a comma.`);
  }); // prettier-ignore
}

function smallestText({ task, lora, found, certain }: WrittenReport["summary"]["smallest"][number]): string {
  const sized = (group: Group): string =>
    `${named(group)} (${group.trainable.toLocaleString("en-US")} parameters)`;
  const sure =
    certain === found
      ? "; the interval of their difference lies within it"
      : `; the smallest of which that is certain is ${sized(certain)}`;
  return `${paint("bold", task)}: ${sized(found)} is the smallest within 1 % of ${sized(lora)}${sure}`;
}

/** "tl6 rank 8, lr 0.03" */
function named(group: Group): string {
  const chosen = chosenText(group);
  return `${group.method} rank ${group.rank}${chosen === "" ? "" : `, ${chosen}`}`;
}

function searchText({ steps, gridSteps, stopped }: NonNullable<WrittenReport["search"]>): string {
  const share = ((100 * steps) / gridSteps).toFixed(0);
  return `successive halving: ${steps} of ${gridSteps} steps of the grid (${share} %); ${stopped.length} variants were stopped early`;
}

const NAMED = 5;

function notesOn({ missing, leftOut }: WrittenReport): string[] {
  const names = leftOut.slice(0, NAMED).join(", ") + (leftOut.length > NAMED ? ", ..." : "");
  return [
    ...(missing > 0 ? [`${missing} runs of the sweep's file are missing; tiedlora sweep runs them`] : []),
    ...(leftOut.length > 0
      ? [`${leftOut.length} runs are left out, because the sweep's file has changed since: ${names}`]
      : []),
  ];
}
