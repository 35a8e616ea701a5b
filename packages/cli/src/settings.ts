/**
 * Settings of a command: a table from which its flags, its YAML file, its defaults and its help follow. Flags override
 * the file, which overrides the defaults. The error for a mistake names the flag, or the key and its line, and the expected values.
 */
import { readFile } from "node:fs/promises";
import { type Command, InvalidArgumentError, Option } from "commander";
import { describeValue } from "@tiedlora/core";
import { isMap } from "yaml";
import type { z } from "zod";
import { suggestion } from "tiedlora/internal";
import { readYaml, YamlError } from "@tiedlora/experiments";

/** The kind of a setting's values: how they are checked, and how text from the command line is converted to one. */
export interface Kind<T> {
  /** Checks a value; its error message describes the expected values. */
  readonly schema: z.ZodType<T>;
  /** Converts text from the command line; invalid text is left for the schema to reject. */
  fromText(text: string): unknown;
  /** The placeholder of the value in the help, e.g. "<n>"; "" for a flag that takes no value. */
  readonly placeholder: string;
}

export interface Setting<T, All = never> {
  readonly kind: Kind<NonNullable<T>>;
  readonly about: string;
  /** The default value. Without a default, a missing value is undefined, or an error if it is `required`. */
  readonly fallback?: T;
  /** A default that depends on settings further up in the table, or undefined for that of `fallback`; `about` describes it. */
  readonly follows?: (settings: All) => T | undefined;
  /** Whether a value must be given, which may depend on what else is. */
  readonly required?: boolean | ((given: Readonly<Record<string, unknown>>) => boolean);
  /** The heading above the setting in the file that `init` writes. */
  readonly group: string;
}

export type Settings<T> = { readonly [K in keyof T]-?: Setting<T[K], T> };

/** Thrown for mistakes of usage, which have a different exit code from failures. */
export class UsageError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "UsageError";
  }
}

/** The names of errors that the library throws for what it was given; those of files, devices and memory have other ones. */
const OF_ARGUMENTS: readonly string[] = ["Error", "RangeError", "TypeError"];

/** Runs `work`, which checks settings against each other or against the model, and rethrows what it finds wrong as UsageError. */
export function asUsage<T>(work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (cause instanceof Error && OF_ARGUMENTS.includes(cause.name)) throw new UsageError(cause.message);
    throw cause;
  }
}

/** "promptColumn" -> "prompt-column": the name of a setting in flags and files. */
export function nameOf(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** Adds the flags of all settings to a command, and --config. */
export function addSettings<T>(command: Command, settings: Settings<T>): Command {
  command.option(
    "--config <file>",
    "a YAML file of settings, which flags override (tiedlora init writes one)",
  );
  for (const [key, setting] of entries(settings)) {
    const { kind, about, fallback, required } = setting;
    const flag = `--${nameOf(key)}${kind.placeholder === "" ? "" : ` ${kind.placeholder}`}`;
    const note =
      required !== undefined ? " (required)" : fallback === undefined ? "" : ` (default: ${show(fallback)})`;
    const option = new Option(flag, about + note);
    if (kind.placeholder !== "") option.argParser(flagParser(kind));
    command.addOption(option);
  }
  return command;
}

function show(value: unknown): string {
  return Array.isArray(value) ? value.join(",") : JSON.stringify(value);
}

/** Returns a parser of a flag's value, which throws InvalidArgumentError with the expected values if the text is not valid. */
export function flagParser<T>(kind: Kind<T>): (text: string) => T {
  return (text) => {
    const result = kind.schema.safeParse(kind.fromText(text));
    if (result.success) return result.data;
    throw new InvalidArgumentError(`expected ${result.error.issues[0]!.message}.`);
  };
}

/** Completes the values of flags from a file and the defaults. Throws UsageError if a required setting is missing. */
export async function resolveSettings<T extends object>(
  settings: Settings<T>,
  flags: Readonly<Record<string, unknown>>,
  file: string | undefined,
): Promise<T> {
  const fromFile = file === undefined ? {} : await readSettings(settings, file);
  const resolved: Record<string, unknown> = {};
  for (const [key, { fallback, follows, required }] of entries(settings)) {
    const given = flags[key] ?? (fromFile as Record<string, unknown>)[key];
    const value = given ?? follows?.(resolved as T) ?? fallback;
    const needed = typeof required === "function" ? required({ ...fromFile, ...flags }) : required === true;
    if (value === undefined && needed) {
      const where = file === undefined ? "" : `, or ${nameOf(key)}: in ${file}`;
      throw new UsageError(`--${nameOf(key)} is missing: give it${where}`);
    }
    if (value !== undefined) resolved[key] = value;
  }
  return resolved as T;
}

/** The settings of a YAML file. Throws YamlError with the line of a mistake, and UsageError if the file cannot be read. */
export async function readSettings<T>(settings: Settings<T>, file: string): Promise<Partial<T>> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (cause) {
    const why = (cause as NodeJS.ErrnoException).code === "ENOENT" ? "there is no such file" : String(cause);
    throw new UsageError(`--config ${file}: ${why}; tiedlora init writes one`);
  }
  return parseSettings(settings, text, file);
}

function parseSettings<T>(settings: Settings<T>, text: string, file: string): Partial<T> {
  const { document, lineAt, plain } = readYaml(text, file);
  const fail = (offset: number, message: string): never => {
    throw new YamlError(file, lineAt(offset), message);
  };
  const { contents } = document;
  if (contents === null) return {};
  if (!isMap(contents)) return fail(contents.range?.[0] ?? 0, "expected settings, one a line: rank: 8");
  const values = plain(contents) as Record<string, unknown>;
  const known = new Map(entries(settings).map(([key, setting]) => [nameOf(key), [key, setting] as const]));
  const found: Record<string, unknown> = {};
  for (const { key } of contents.items) {
    const name = String(plain(key));
    const at = (key as { readonly range?: readonly number[] | null }).range?.[0] ?? 0;
    const entry = known.get(name.replaceAll("_", "-"));
    if (entry === undefined) return fail(at, unknownKey(name, known.keys()));
    const given = values[name];
    if (given === null || given === undefined) continue; // "clip:" without a value is the same as no line
    const [setting, { kind }] = entry;
    const result = kind.schema.safeParse(given);
    if (!result.success)
      fail(at, `${name} is ${describeValue(given)}; expected ${result.error.issues[0]!.message}`);
    found[setting] = result.data;
  }
  return found as Partial<T>;
}

function unknownKey(name: string, known: Iterable<string>): string {
  return `there is no setting "${name}"; ${suggestion(name.replaceAll("_", "-"), known, "the settings are")}`;
}

/** The keys and settings of a table, in its order. */
export function entries<T>(settings: Settings<T>): [key: string & keyof T, setting: Setting<unknown, T>][] {
  return Object.entries(settings) as [string & keyof T, Setting<unknown, T>][];
}
