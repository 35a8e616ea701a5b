/** Methods as plain data, for adapter files: the options of a declaration are written as a recipe, and read from it again. */
import type { Json, MethodSpec, Recipe } from "../method.ts";
import { compilePattern, Pattern, PatternWork } from "../regex/pattern.ts";

/** The fields of a method that the table of methods passes to its declaration. */
export type Named = Required<Pick<MethodSpec<never>, "name" | "learningRate" | "recipe">>;

/** Stands for a function, which is not plain data. To load a file that contains it, the caller must give the method. */
const CUSTOM = "(custom)";

/** Options as plain data. Regular expressions become { regex, flags }; functions become CUSTOM; undefined is left out. */
export function recipe(method: string, options: object): Recipe {
  const plain = Object.entries(options).flatMap(([key, value]): [string, Json][] => {
    const json = toJson(value);
    return json === undefined ? [] : [[key, json]];
  });
  return { method, options: Object.fromEntries(plain) };
}

function toJson(value: unknown): Json | undefined {
  if (value === undefined) return undefined;
  if (value === null || typeof value === "string" || typeof value === "number" || typeof value === "boolean")
    return value;
  if (typeof value === "function") return CUSTOM;
  if (value instanceof RegExp) return { regex: value.source, flags: value.flags };
  if (value instanceof Pattern) return { regex: value.source, flags: "" };
  if (Array.isArray(value)) return value.map((item) => toJson(item) ?? null);
  return recipe("", value).options;
}

/**
 * The options in a recipe; null if one of them is `CUSTOM`. Regular expressions become `Pattern`s, whose matching time is bounded:
 * a file must not be able to hang its reader. Throws PatternError for regular expressions that `Pattern` does not support.
 */
export function recipeOptions({ options }: Recipe): Record<string, unknown> | null {
  if (JSON.stringify(options).includes(JSON.stringify(CUSTOM))) return null;
  const work = new PatternWork();
  return fromJson(options, work) as Record<string, unknown>;
}

function fromJson(value: Json, work: PatternWork): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (isArray(value)) return value.map((item) => fromJson(item, work));
  const { regex, flags } = value;
  if (typeof regex === "string" && typeof flags === "string")
    return compilePattern(flags.includes("i") ? `(?i)${regex}` : regex, work);
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, fromJson(item, work)]));
}

function isArray(value: Json): value is readonly Json[] {
  return Array.isArray(value);
}
