/** Writes the report of a sweep's folder: report.html, runs.csv, summary.csv, comparisons.csv and, on request, figures and tables for a paper. */
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { recoverDirectory, writeFilesAtomic } from "@tiedlora/core/node";
import { chartsOf } from "../report/charts.ts";
import { plot, type PlotSize } from "../report/figure/plot.ts";
import { svgFile } from "../report/figure/svg.ts";
import { latexTables } from "../report/latex.ts";
import { pdfWriter, type PdfWriter } from "./pdf.ts";
import { type Counted, countedRuns } from "../report/counted.ts";
import { type Compared, compared, type Variant } from "../report/compared.ts";
import { comparisonsCsv, runsCsv, summaryCsv } from "../report/csv.ts";
import { type PageParts, reportHtml } from "../report/html.ts";
import type { Searched } from "../report/searched.ts";
import { summarize, type Summary } from "../report/summary.ts";
import { RunStore } from "./sweep/store.ts";
import { checkFree } from "tiedlora/internal/node";
import { writing } from "tiedlora/internal/node";

/** A report that was written: its files, and the results that it is made from. */
export interface WrittenReport {
  readonly files: readonly string[];
  readonly summary: Summary;
  readonly runs: number;
  readonly failures: number;
  /** The number of runs in the sweep's file that have no outcome yet. */
  readonly missing: number;
  /** The ids of runs in the folder that are not in the sweep's file. */
  readonly leftOut: readonly string[];
  /** What a search has stopped early; null if the sweep does not search. */
  readonly search: Searched | null;
  /** The differences to one method at one rank; null if there is none to compare with. */
  readonly compared: Compared | null;
}

export interface ReportOptions {
  /** The heading of the report. */
  readonly title: string;
  /** Replaces existing files that have the names of the report's files. Default: false, which makes them an error. */
  readonly force?: boolean;
  /** The method and rank with which all others are compared. Default: LoRA at the rank nearest to 8. */
  readonly against?: Variant | undefined;
  /** Whether the page shows examples: questions and answers of the data, which its licence may not allow to publish, and what models wrote. Default: true. */
  readonly samples?: boolean;
  /** Figures in these formats, and tables.tex. Default: none. */
  readonly figures?: readonly FigureFormat[];
}

/** The formats in which figures are written, beside the report. */
export const FIGURE_FORMATS = ["svg", "pdf"] as const;
/** A format of figures. */
export type FigureFormat = (typeof FIGURE_FORMATS)[number];

const FILES = ["report.html", "runs.csv", "summary.csv", "comparisons.csv"] as const;

/**
 * Reads the results in `directory` that belong to its sweep.yaml, and writes the report into `out`. Throws if there are no
 * such results.
 */
export async function writeReport(
  directory: string,
  out: string,
  { title, force = false, against, samples = true, figures = [] }: ReportOptions,
): Promise<WrittenReport> {
  const toPdf = figures.includes("pdf") ? await pdfWriter() : undefined;
  const there = await readdir(out).catch((): string[] => []);
  checkFree(out, FILES.filter((name) => there.includes(name)), force); // prettier-ignore
  const store = new RunStore(directory);
  const spec = await store.spec();
  const [outcomes, allFailures, decided] = await Promise.all([
    store.outcomes({ curves: false }),
    store.failures(),
    store.decided(),
  ]);
  const counted = countedRuns({ outcomes, failures: allFailures, decided }, spec, store.specFile);
  const { results, failures, missing, leftOut } = counted;
  if (results.length === 0)
    throw new Error(`${directory} has no finished runs${reasons(counted)}; tiedlora sweep writes them`);
  const summary = summarize(counted.outcomes);
  const differences = compared(summary, against);
  const files: [string, string | Uint8Array][] = [
    [
      "report.html",
      reportHtml({ title, summary, spec, ...counted, compared: differences, samples }, await pageParts()),
    ],
    ["runs.csv", runsCsv(results)],
    ["summary.csv", summaryCsv(summary)],
    ...(differences === null || differences.comparisons.length === 0
      ? []
      : [["comparisons.csv", comparisonsCsv(differences)] as [string, string]]),
    ...(figures.length > 0 ? await paperFiles(summary, differences, figures.includes("svg"), toPdf) : []),
  ];
  checkFree(out, files.flatMap(([name]) => (there.includes(name) ? [name] : [])), force); // prettier-ignore
  await recoverDirectory(out);
  await writing(out, () => writeFilesAtomic(out, files));
  return {
    files: files.map(([name]) => join(out, name)),
    summary,
    runs: results.length,
    failures: failures.length,
    missing: missing.length,
    leftOut,
    search: counted.search,
    compared: differences,
  };
}

/** The size of a figure that spans a page's text. */
const SIZE: PlotSize = { width: 640, height: 400, letters: 13 };

/** A figure of each chart of quality, by size and by rank, and the tables. */
async function paperFiles(
  summary: Summary,
  differences: Compared | null,
  svg: boolean,
  toPdf: PdfWriter | undefined,
): Promise<[string, string | Uint8Array][]> {
  const files: [string, string | Uint8Array][] = [["tables.tex", latexTables(summary, differences)]];
  for (const chart of chartsOf(summary).filter(({ section }) => section !== "curves")) {
    const drawing = plot(chart, SIZE);
    if (svg) files.push([`${chart.id}.svg`, svgFile(drawing)]);
    if (toPdf) files.push([`${chart.id}.pdf`, await toPdf(drawing)]);
  }
  return files;
}

function reasons({ failures, leftOut }: Counted): string {
  const said = [
    failures.length > 0 && `${failures.length} failed, the first: ${failures[0]!.message}`,
    leftOut.length > 0 && `${leftOut.length} are not in its sweep.yaml, such as ${leftOut[0]}`,
  ].filter((one) => one !== false);
  return said.length === 0 ? "" : ` (${said.join("; ")})`;
}

async function pageParts(): Promise<PageParts> {
  const own = (name: string): Promise<string> =>
    readFile(fileURLToPath(new URL(`../../assets/report/${name}`, import.meta.url)), "utf8");
  return {
    styles: [await own("report.css")],
    scripts: [await own("report.js")],
    digest: (script) => createHash("sha256").update(script).digest("base64"),
  };
}
