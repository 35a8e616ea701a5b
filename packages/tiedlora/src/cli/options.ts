/** Option values: text from the command line to numbers and names, with errors that say what was expected. */
import { InvalidArgumentError } from "commander";
import { METHOD_NAMES, type MethodName } from "../methods/index.ts";
import { nearest } from "../nearest.ts";
import type { Modules } from "../sites.ts";

/** A whole number of at least `min`. */
export function whole(min: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text.trim()) || !Number.isSafeInteger(value) || value < min)
      throw new InvalidArgumentError(`expected a whole number of at least ${min}.`);
    return value;
  };
}

/** A finite number within bounds. */
export function number(bounds: { readonly min?: number; readonly above?: number; readonly below?: number }) {
  return (text: string): number => {
    const value = text.trim() === "" ? NaN : Number(text);
    const { min = -Infinity, above = -Infinity, below = Infinity } = bounds;
    if (!Number.isFinite(value) || value < min || value <= above || value >= below) {
      const wanted = [
        bounds.min !== undefined && `at least ${min}`,
        bounds.above !== undefined && `above ${above}`,
        bounds.below !== undefined && `below ${below}`,
      ].filter(Boolean);
      throw new InvalidArgumentError(`expected a number ${wanted.join(" and ")}.`.replace(" .", "."));
    }
    return value;
  };
}

/** One of a list of names. */
export function oneOf<const T extends string>(names: readonly T[]): (text: string) => T {
  return (text) => {
    const found = names.find((name) => name === text);
    if (found !== undefined) return found;
    const close = nearest(text, names);
    throw new InvalidArgumentError(
      `expected one of ${names.join(", ")}${close === null ? "" : ` (did you mean ${close}?)`}.`,
    );
  };
}

export const methodName: (text: string) => MethodName = oneOf(METHOD_NAMES);

/** "qkv", "all-linear", a comma-separated list of module names, or /a regular expression/. */
export function target(text: string): Modules {
  if (text === "qkv" || text === "all-linear") return text;
  const pattern = /^\/(.*)\/$/.exec(text);
  if (pattern === null) return text.split(",").map((name) => name.trim());
  try {
    return new RegExp(pattern[1]!);
  } catch (cause) {
    throw new InvalidArgumentError(`not a regular expression: ${(cause as Error).message}.`);
  }
}
