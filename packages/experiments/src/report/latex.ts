/** The results of a sweep as LaTeX tables, for the package booktabs. */
import { type Compared, differenceText, pText, variantName } from "./compared.ts";
import { ALL_TASKS, type Group, type Summary } from "./summary.ts";

/** One table for the means over tasks, if there are any, and one for each task: a row for each method, a column for each rank; and one of the differences. */
export function latexTables(summary: Summary, compared: Compared | null = null): string {
  const { tasks, averages, groups } = summary;
  const all: (readonly [string, readonly Group[]])[] = [
    [ALL_TASKS, averages],
    ...tasks.map((task) => [task, groups.filter((group) => group.task === task)] as const),
  ];
  const tables = all.flatMap(([task, own]) => (own.length === 0 ? [] : [tableOf(task, own, summary)]));
  const differences = compared === null || compared.comparisons.length === 0 ? [] : [differencesOf(compared)];
  return `% needs \\usepackage{booktabs}\n${[...tables, ...differences].join("\n")}`;
}

function tableOf(task: string, groups: readonly Group[], { methods, ranks }: Summary): string {
  const rows = methods.flatMap((method) => {
    const own = groups.filter((group) => group.method === method);
    if (own.length === 0) return [];
    const cells = ranks.map((rank) => cellOf(own.find((group) => group.rank === rank)));
    const sizes = own.map(({ trainable }) => trainable);
    const [least, most] = [Math.min(...sizes), Math.max(...sizes)].map((n) => n.toLocaleString("en-US"));
    return [
      `  ${[escaped(method), ...cells, least === most ? least! : `${least}--${most}`].join(" & ")} \\\\`,
    ];
  });
  const seeds = Math.max(...groups.map(({ quality }) => quality.count));
  const header = ["method", ...ranks.map((rank) => `$r = ${rank}$`), "parameters"].join(" & ");
  return [
    "\\begin{table}",
    "  \\centering",
    `  \\begin{tabular}{l${"r".repeat(ranks.length + 1)}}`,
    "  \\toprule",
    `  ${header} \\\\`,
    "  \\midrule",
    ...rows,
    "  \\bottomrule",
    "  \\end{tabular}",
    `  \\caption{${escaped(task)}: ${escaped(groups[0]!.measure.name)}, mean over ${seeds} seed${seeds === 1 ? "" : "s"}${seeds > 1 ? " $\\pm$ half of the 95\\,\\% interval" : ""}.}`,
    "\\end{table}",
    "",
  ].join("\n");
}

function differencesOf({ against, comparisons }: Compared): string {
  const rows = comparisons.map((one) => {
    const { group, measure, mean, low, high, p } = one;
    const value = (given: number): string => differenceText(given, one, 1);
    const interval = `$[${value(low)}, ${value(high)}]$`;
    const task = measure === group.measure ? group.task : `${group.task}, ${measure.name}`;
    const cells = [escaped(task), escaped(group.method), group.rank, `$${value(mean)}$`, interval, `$${pText(p)}$`];
    return `  ${cells.join(" & ")} \\\\`;
  }); // prettier-ignore
  return [
    "\\begin{table}",
    "  \\centering",
    "  \\begin{tabular}{llrrrr}",
    "  \\toprule",
    "  task & method & $r$ & difference & 95\\,\\% interval & $p$ \\\\",
    "  \\midrule",
    ...rows,
    "  \\bottomrule",
    "  \\end{tabular}",
    `  \\caption{Differences to ${escaped(variantName(against))}: paired bootstrap over seeds and test examples, not corrected for their number.}`,
    "\\end{table}",
    "",
  ].join("\n");
}

function cellOf(group: Group | undefined): string {
  if (group === undefined) return "--";
  const { mean, half } = group.quality;
  return half === null ? `$${mean.toFixed(1)}$` : `$${mean.toFixed(1)} \\pm ${half.toFixed(1)}$`;
}

const escaped = (text: string): string =>
  text
    .replace(/\\/g, "\\textbackslash ")
    .replace(/[&%$#_{}]/g, "\\$&")
    .replace(/[~^]/g, (c) => `\\${c}{}`);
