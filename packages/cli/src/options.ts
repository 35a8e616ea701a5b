/** Parsers for single flags of commands that have no file of settings. */
import { METHOD_NAMES, type MethodName } from "tiedlora";
import type { Modules } from "tiedlora";
import * as kinds from "./kinds.ts";
import { flagParser } from "./settings.ts";

type Parser<T> = (text: string) => T;

/** A whole number of at least `min`, and at most `max`. */
export const whole = (min: number, max?: number): Parser<number> => flagParser(kinds.whole(min, max));

/** A finite number within bounds. */
export const number = (bounds: kinds.Bounds): Parser<number> => flagParser(kinds.number(bounds));

/** The path of a file or a directory. */
export const path: Parser<string> = flagParser(kinds.path("path"));

/** One of a list of names. */
export const oneOf = <const T extends string>(names: readonly T[]): Parser<T> =>
  flagParser(kinds.oneOf(names));

/** Some of a list of names, separated by commas. */
export const someOf = <const T extends string>(names: readonly T[]): Parser<readonly T[]> =>
  flagParser(kinds.listOf(names));

/** Options of a method: bases=16,top-k=4. */
export const optionsByName: Parser<Readonly<Record<string, unknown>>> = flagParser(kinds.optionsByName);

export const methodName: Parser<MethodName> = oneOf(METHOD_NAMES);

/** "qkv", "all-linear", a comma-separated list of module names, or /a regular expression/. */
export const target: Parser<Modules> = flagParser(kinds.modules);
