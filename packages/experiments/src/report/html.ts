/** The report of a sweep as one self-contained HTML file: tables, and the data that the page's script draws. */
import type { RunFailure, RunResult } from "../sweep/config.ts";
import { type Chart, chartsOf } from "./charts.ts";
import { plot, type PlotSize } from "./figure/plot.ts";
import { svgElement } from "./figure/svg.ts";
import { type Compared, differenceText, pText, variantName } from "./compared.ts";
import { type Content, markup, type Markup, trusted } from "./markup.ts";
import type { Searched } from "./searched.ts";
import type { Interval } from "./stats.ts";
import { choiceText, chosenText, type Group, measureOf, qualityOf, type Summary } from "./summary.ts";

/** The parts of the page besides the data. */
export interface PageParts {
  readonly scripts: readonly string[];
  readonly styles: readonly string[];
  /** The SHA-256 of a script in base64, by which the page's content security policy identifies it. */
  readonly digest: (script: string) => string;
}

export interface ReportInput {
  readonly title: string;
  readonly results: readonly RunResult[];
  readonly failures: readonly RunFailure[];
  readonly summary: Summary;
  /** The text of the sweep's own file; null if there is none. */
  readonly spec: string | null;
  /** Runs in the sweep's file that have no outcome yet. */
  readonly missing: readonly string[];
  /** Runs that have an outcome, but are not in the sweep's file. */
  readonly leftOut: readonly string[];
  /** What a search has stopped early; null if the sweep does not search. */
  readonly search: Searched | null;
  /** The differences to one method at one rank; null if there is none to compare with. */
  readonly compared: Compared | null;
  /** Whether the page shows examples: questions and answers of the data, and what models wrote. */
  readonly samples: boolean;
}

/** The content security policy: only the page's own scripts, identified by their digests, may run, and nothing is loaded. */
const policyOf = (digests: readonly string[]): string =>
  [
    "default-src 'none'",
    `script-src ${digests.map((digest) => `'sha256-${digest}'`).join(" ") || "'none'"}`,
    "style-src 'unsafe-inline'",
    "img-src data:",
    "base-uri 'none'",
    "form-action 'none'",
  ].join("; ");

export function reportHtml(input: ReportInput, { scripts, styles, digest }: PageParts): string {
  const { title, summary } = input;
  const programs = scripts.map((script) => script.replaceAll("</script", "<\\/script"));
  const charts = chartsOf(summary);
  const page = markup`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="content-security-policy" content="${policyOf(programs.map(digest))}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<link rel="icon" href="data:,">
<style>${trusted(styles.join("\n"))}</style>
</head>
<body>
<main>
<h1>${title}</h1>
<p>${overview(input)}</p>
${section("Smallest adapter within 1 % of LoRA", smallestTable(summary))}
${comparedSection(input.compared)}
${section("Quality against trainable parameters", markup`<p>${CHARTS}</p>${chartsDiv(charts, "size")}`)}
${section("Quality against rank", chartsDiv(charts, "rank"))}
${section("Learning curves", curves(charts, summary))}
${section("All results", markup`<p>Means over seeds ± half of the 95 % interval (Student's t). ${choiceText(summary) ?? ""}</p>${resultsTable(summary)}`)}
${searchSection(input.search)}
${leftOutSection(input.leftOut)}
${failuresSection(input.failures)}
${section("Examples", input.samples ? samples(summary) : "They were left out of this report.")}
${section("Configurations", configs(input))}
</main>
${programs.map((program) => markup`<script>${trusted(program)}</script>\n`)}</body>
</html>
`;
  return String(page);
}

const CHARTS =
  "Marks are means over seeds, vertical lines their 95 % intervals, small dots the single seeds. The broad gray line is the Pareto " +
  "front: adapters to which no smaller one is equal. Point at a mark, or touch it, for its numbers.";

function curves(charts: readonly Chart[], { ranks }: Summary): Markup {
  const options = ranks.map((rank) => markup`<option value="${rank}">${rank}</option>`);
  const select = markup`<label>Rank <select id="rank">${options}</select></label>`;
  return markup`<p>${select} Loss on the validation set; means over seeds.</p>${chartsDiv(charts, "curves")}`;
}

/** The size of a chart in the page, where three stand side by side on a wide screen. */
const SIZE: PlotSize = { width: 420, height: 320, letters: 13 };

function chartsDiv(charts: readonly Chart[], name: Chart["section"]): Markup {
  const own = charts.filter(({ section: of }) => of === name);
  const figures = own.map(
    (chart) =>
      markup`<figure class="chart" id="${chart.id}" data-rank="${chart.rank ?? ""}"><figcaption>${chart.title}</figcaption>
${svgElement(plot(chart, SIZE))}</figure>\n`,
  );
  return markup`<div class="charts" data-section="${name}">${figures}</div>`;
}

function section(title: string, content: Content): Markup {
  return markup`<section><h2>${title}</h2>\n${content}</section>`;
}

function overview({ results, failures, summary, missing }: ReportInput): string {
  const [first] = results;
  const seconds = results.reduce((sum, run) => sum + run.seconds, 0);
  const seeds = new Set(results.map(({ config }) => config.seed)).size;
  const models = [...new Set(results.map(({ config }) => config.model))].join(", ");
  const notes = [...new Set(results.map(({ note }) => note))].filter((note) => note !== null);
  const later = missing.length > 0 ? `, ${missing.length} not done yet` : "";
  return (
    `${results.length} runs (${failures.length} failed${later}) on the model ${models}: ${summary.tasks.length} tasks, ` +
    `${summary.methods.length} methods, ranks ${summary.ranks.join(", ")}, ${seeds} seeds; ` +
    `${(seconds / 3600).toFixed(1)} hours of training on ${first?.device ?? "no device"}. ${notes.join(". ")}`
  );
}

function smallestTable({ smallest }: Summary): Markup {
  if (smallest.length === 0) return markup`<p>There are no LoRA runs to compare with.</p>`;
  const adapter = (group: Group, { lora }: Summary["smallest"][number]): string[] => [
    `${group.method} r${group.rank}: ${shown(group.quality)}`,
    whole(group.trainable),
    `${((100 * group.trainable) / lora.trainable).toFixed(1)} %`,
  ];
  const rows = smallest.map((one) => [
    one.task,
    one.lora.measure.name,
    `lora r${one.lora.rank}: ${shown(one.lora.quality)}`,
    whole(one.lora.trainable),
    ...adapter(one.found, one),
    ...adapter(one.certain, one),
  ]);
  const header = [
    "task", "metric", "best LoRA", "its parameters", "smallest by its mean", "its parameters", "share", "smallest that is certain",
    "its parameters", "share",
  ]; // prettier-ignore
  return markup`<p>An adapter is certain where the 95 % interval of its difference to the best LoRA, seed by seed, lies within 1 %.</p>${table(header, rows)}`;
}

/** The differences to one method at one rank. */
function comparedSection(compared: Compared | null): Content {
  if (compared === null) return "";
  const { against, comparisons, unpaired } = compared;
  if (comparisons.length === 0) return "";
  const why =
    `Differences to ${variantName(against)}, with their 95 % intervals and p by the paired bootstrap: seeds and test examples are drawn anew, the ` +
    `same for both. Where the interval has no zero in it, the sign is certain at that level; p is not corrected for the number of comparisons. A loss, in nats per token, is better where it is lower. With one seed, they are those of the examples alone.`;
  const left =
    unpaired.length === 0
      ? ""
      : markup`<p>${unpaired.length} of ${comparisons.length + unpaired.length} could not be compared: their runs have no scores of single examples, or were asked other questions.</p>`;
  const rows = comparisons.map((one) => {
    const { group, measure, seeds, examples, mean, low, high, p } = one;
    const value = (given: number): string => differenceText(given, one, 2);
    return [
      group.task,
      group.method,
      String(group.rank),
      whole(group.trainable),
      measure.name,
      `${mean > 0 ? "+" : ""}${value(mean)}`,
      `${value(low)} to ${value(high)}`,
      pText(p),
      String(seeds),
      whole(examples),
    ];
  });
  const header = ["task", "method", "rank", "trainable", "metric", "difference", "95 % interval", "p", "seeds", "examples"]; // prettier-ignore
  return section(`Against ${variantName(against)}`, markup`<p>${why}</p>${left}${table(header, rows)}`);
}

function resultsTable(summary: Summary): Markup {
  const { groups, averages, tasks, baselines } = summary;
  const varies = groups.some(({ variants }) => variants > 1);
  const measured = (group: Group): string[] => [
    group.task,
    group.method,
    String(group.rank),
    whole(group.trainable),
    group.measure.name,
    shown(group.quality),
    shown(group.loss, 4),
    String(group.quality.count),
    ...(varies
      ? [group.variants > 1 ? `${chosenText(group) || "one for each task"} (of ${group.variants})` : ""]
      : []),
  ];
  const base = tasks.flatMap((task) => {
    const run = baselines.get(task);
    if (run === undefined) return [];
    const measure = measureOf(run);
    return [
      [
        task,
        "no adapter",
        "",
        "0",
        measure.name,
        qualityOf(run, measure).toFixed(2),
        run.test.loss.toFixed(4),
        "",
        ...(varies ? [""] : []),
      ],
    ];
  });
  return table(
    [
      "task", "method", "rank", "trainable", "metric", "quality", "test loss", "seeds", ...(varies ? ["chosen by validation"] : []),
    ], // prettier-ignore
    [...averages.map(measured), ...base, ...groups.map(measured)],
  );
}

/** The trials that a search stopped early, and what each was compared with. */
function searchSection(search: Searched | null): Content {
  if (search === null) return "";
  const { factor, reached, stopped, steps, gridSteps } = search;
  const rungs = search.rungs.map((all) => all.join(" or "));
  const why =
    `Successive halving trained the variants of each task, method and rank for ${rungs[0]} steps, and the best of them (one of ${factor}, ` +
    `by validation loss) on to ${rungs.slice(1).join(", then ")}: ${whole(steps)} steps, ${((100 * steps) / gridSteps).toFixed(0)} % of the ` +
    `${whole(gridSteps)} that all of them take. The schedule of the learning rate is that of ${rungs.at(-1)} steps in all runs.${rungs[0]!.includes("or") ? " Runs are compared so many steps behind their warm-ups." : ""}`;
  const counts = table(
    ["compared", ...rungs.map((n) => `trained ${n} steps`)],
    [...reached].map(([name, all]) => [name, ...all.map(whole)]),
  );
  const rows = table(
    ["compared", "variant", "stopped after", "validation loss", "place"],
    stopped.map((one) => [
      one.competition,
      one.settings,
      `${one.steps} steps`,
      one.loss === Infinity ? "failed" : one.loss.toFixed(4),
      `${one.place} of ${one.among}`,
    ]),
  );
  const all = markup`<details><summary>The ${stopped.length} variants that were stopped</summary>${rows}</details>`;
  return section("Stopped early", markup`<p>${why}</p>${counts}${all}`);
}

function leftOutSection(leftOut: readonly string[]): Content {
  if (leftOut.length === 0) return "";
  const why =
    "These runs are in the folder, but not in the sweep's file: it has changed since they were done.";
  const names = leftOut.map((id) => [id]);
  return section("Left out", markup`<p>${why}</p>${table(["run"], names)}`);
}

function failuresSection(failures: readonly RunFailure[]): Content {
  if (failures.length === 0) return "";
  return section(
    "Failed runs",
    table(
      ["run", "why"],
      failures.map(({ id, message }) => [id, message]),
    ),
  );
}

/** For each task, the answers of the model without an adapter and with the task's best one. */
function samples({ tasks, groups, baselines }: Summary): Content {
  return tasks.map((task) => {
    const own = groups.filter((group) => group.task === task);
    if (own.length === 0) return "";
    const best = own.reduce((a, b) =>
      (b.quality.mean - a.quality.mean) * (a.measure.higherIsBetter ? 1 : -1) > 0 ? b : a,
    );
    const before = baselines.get(task)?.samples ?? [];
    const rows = best.runs[0]!.samples.map(({ prompt, text, answer }, i) => [
      prompt,
      before[i]?.text ?? "",
      text,
      answer,
    ]);
    if (rows.length === 0) return "";
    const header = ["prompt", "no adapter", `${best.method} rank ${best.rank}`, "right"];
    return markup`<h3>${task}</h3>${table(header, rows)}\n`;
  });
}

function configs({ results, spec }: ReportInput): Content {
  const file = spec === null ? "" : markup`<details open><summary>The sweep's file</summary><pre>${spec}</pre></details>`; // prettier-ignore
  const all = results.map(({ id, config }) => `${id} ${JSON.stringify(config)}`).join("\n");
  return markup`${file}<details><summary>The config of every run</summary><pre>${all}</pre></details>`;
}

function table(header: readonly string[], rows: readonly (readonly string[])[]): Markup {
  const head = header.map((cell) => markup`<th>${cell}</th>`);
  const body = rows.map((row) => markup`<tr>${row.map((cell) => markup`<td>${cell}</td>`)}</tr>\n`);
  return markup`<div class="table"><table><thead><tr>${head}</tr></thead><tbody>\n${body}</tbody></table></div>`;
}

function shown({ mean, half }: Interval, digits = 2): string {
  return half === null ? mean.toFixed(digits) : `${mean.toFixed(digits)} ± ${half.toFixed(digits)}`;
}

const whole = (value: number): string => value.toLocaleString("en-US");
