/** `tiedlora report`: the findings of a sweep, as one HTML file and as tables. */
import { basename, resolve } from "node:path";
import type { Command } from "commander";
import { type WrittenReport, writeReport } from "@tiedlora/experiments/node";
import { choiceText, chosenText, type Group } from "@tiedlora/experiments";
import { checkOut } from "./checks.ts";
import { path } from "./options.ts";
import { paint, type Output } from "./output.ts";

interface ReportCommand {
  readonly out?: string;
  readonly title?: string;
  readonly force?: true;
}

export function addReport(program: Command, output: Output): void {
  program
    .command("report")
    .description("write the report of a sweep: one HTML file with plots and tables, and CSV")
    .argument("<dir>", "the folder of a sweep's results")
    .option(
      "--out <dir>",
      "where report.html, runs.csv and summary.csv are written (default: the same folder)",
      path,
    )
    .option("--force", "replace these files if they exist")
    .option("--title <text>", "the report's heading (default: the folder's name)")
    .addHelpText("after", "\nExample:\n  tiedlora report runs/paper-grid --title 'The paper on a laptop'")
    .action(async (directory: string, options: ReportCommand) => {
      if (options.out !== undefined) await checkOut(options.out);
      const title = options.title ?? basename(resolve(directory));
      const out = options.out ?? directory;
      const report = await writeReport(directory, out, { title, force: options.force === true });
      for (const { task, lora, found } of report.summary.smallest) {
        output.info(
          `${paint("bold", task)}: ${named(found)} (${found.trainable.toLocaleString("en-US")} parameters) is the ` +
            `smallest within 1 % of ${named(lora)} (${lora.trainable.toLocaleString("en-US")})`,
        );
      }
      const choice = choiceText(report.summary);
      if (choice !== null) output.info(choice);
      if (report.search !== null) output.info(searchText(report.search));
      for (const note of notesOn(report)) output.info(`${paint("yellow", "note:")} ${note}`);
      if (report.failures > 0) output.info(`${report.failures} runs failed; they are listed in the report`);
      for (const file of report.files) output.out(file);
    });
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
