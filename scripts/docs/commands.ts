/** Generates the reference of the command line from the commands themselves. */
import type { Argument, Command, Option } from "commander";
import { createProgram } from "../../packages/cli/src/main.ts";
import { processOutput } from "../../packages/cli/src/output.ts";

/** The program with all its commands; its output is collected in `printed`. */
export function commandLine(): { readonly program: Command; readonly printed: string[] } {
  const printed: string[] = [];
  const collect = (text: string): void => void printed.push(text);
  return { program: createProgram({ ...processOutput(), out: collect, info: collect }), printed };
}

/** All commands as Markdown, in alphabetical order. */
export function commandReference(): string {
  const { program, printed } = commandLine();
  const commands = program.commands.toSorted((a, b) => a.name().localeCompare(b.name()));
  const list = commands.map((one) => `- [\`${one.name()}\`](#tiedlora-${one.name()}): ${one.description()}`);
  const everywhere = table(
    "option of every command",
    program.createHelp().visibleOptions(program).map(optionRow),
  );
  const sections = commands.map((one) => section(one, printed));
  return [list.join("\n"), everywhere, ...sections, extraHelp(program, printed)].join("\n\n");
}

function section(command: Command, printed: string[]): string {
  const help = command.createHelp();
  const parts = [
    `## tiedlora ${command.name()}`,
    sentence(command.description()),
    fenced(help.commandUsage(command)),
    table("argument", help.visibleArguments(command).map(argumentRow)),
    table("option", help.visibleOptions(command).map(optionRow)),
    fenced(extraHelp(command, printed)),
  ];
  return parts.filter((part) => part !== "").join("\n\n");
}

type Row = readonly [name: string, about: string];

function argumentRow(argument: Argument): Row {
  return [argument.name(), argument.description + defaultOf(argument.defaultValue)];
}

function optionRow({ flags, description, defaultValue, mandatory }: Option): Row {
  return [flags, description + (mandatory ? " (required)" : defaultOf(defaultValue))];
}

function defaultOf(value: unknown): string {
  return value === undefined ? "" : ` (default: ${JSON.stringify(value)})`;
}

function table(what: string, rows: readonly Row[]): string {
  if (rows.length === 0) return "";
  const cell = (text: string): string => text.replaceAll("|", "\\|").replaceAll("<", "&lt;");
  const lines = rows.map(([name, about]) => `| \`${name.replaceAll("|", "\\|")}\` | ${cell(about)} |`);
  return [`| ${what} | meaning |`, "| --- | --- |", ...lines].join("\n");
}

/** The part of a command's help below its options, such as examples and exit codes. */
function extraHelp(command: Command, printed: string[]): string {
  printed.length = 0;
  command.outputHelp();
  return printed.join("\n").replace(command.helpInformation().trimEnd(), "").trim();
}

const fenced = (text: string): string => (text === "" ? "" : `\`\`\`text\n${text}\n\`\`\``);
const sentence = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
