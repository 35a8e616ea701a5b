/** The kinds of values that settings can have. Each error message completes "expected ...". */
import { parse } from "yaml";
import { z } from "zod";
import { nearest } from "tiedlora/internal";
import type { Modules } from "tiedlora";
import type { Kind } from "./settings.ts";

export const text = (placeholder: string): Kind<string> => ({
  placeholder: `<${placeholder}>`,
  schema: z.string({ error: "text" }),
  fromText: (given) => given,
});

/** The path of a file or a directory. An empty path would be the current directory, which is never what was meant. */
export const path = (placeholder: string): Kind<string> => ({
  placeholder: `<${placeholder}>`,
  schema: z.string({ error: "a path" }).min(1, { error: "a path ('.' for the current directory)" }),
  fromText: (given) => given,
});

/** A whole number of at least `min`, and at most `max`. */
export function whole(min: number, max: number = Number.MAX_SAFE_INTEGER): Kind<number> {
  const most = max === Number.MAX_SAFE_INTEGER ? "" : `, at most ${max}`;
  const error = `a whole number of at least ${min}${most}`;
  return {
    placeholder: "<n>",
    schema: z.int({ error }).min(min, { error }).max(max, { error }),
    fromText: toNumber,
  };
}

export interface Bounds {
  readonly min?: number;
  readonly above?: number;
  readonly below?: number;
}

/** Smaller numbers above 0 round to 0 in f32, or lead to numbers that do: training would silently change nothing. */
const SMALLEST = 1e-30;
/** The inverse of SMALLEST, which f32 can still compute with. */
const LARGEST = 1e30;

/** A finite number within bounds. */
export function number({ min, above, below }: Bounds): Kind<number> {
  const wanted = [
    min !== undefined && `at least ${min}`,
    above !== undefined && `above ${above}`,
    below !== undefined && `below ${below}`,
  ].filter(Boolean);
  const error = `a number ${wanted.join(" and ")}`.trim();
  let schema = z.number({ error });
  if (min !== undefined) schema = schema.min(min, { error });
  if (above !== undefined) schema = schema.gt(above, { error });
  if (above === 0) {
    const tiny = `${error} that f32 can compute with, from ${SMALLEST} to ${LARGEST}`;
    schema = schema.min(SMALLEST, { error: tiny }).max(LARGEST, { error: tiny });
  }
  if (below !== undefined) schema = schema.lt(below, { error });
  return { placeholder: "<x>", schema, fromText: toNumber };
}

const toNumber = (given: string): unknown => (given.trim() === "" ? given : Number(given));

/** One of a list of names, in upper or lower case. */
export function oneOf<const T extends string>(names: readonly T[], placeholder = "name"): Kind<T> {
  const schema = z.enum(names as unknown as readonly [T, ...T[]], {
    error: ({ input }) => {
      const close = typeof input === "string" ? nearest(input, names) : null;
      return `one of ${names.join(", ")}${close === null ? "" : ` (did you mean ${close}?)`}`;
    },
  });
  const spelled = (given: unknown): unknown =>
    typeof given === "string" ? (names.find((name) => sameName(name, given)) ?? given) : given;
  return {
    placeholder: `<${placeholder}>`,
    schema: z.preprocess(spelled, schema),
    fromText: (given) => given,
  };
}

function sameName(a: string, b: string): boolean {
  return a.toLowerCase() === b.trim().toLowerCase();
}

/** Names from a list, separated by commas; "none" for an empty list. */
export function listOf<const T extends string>(names: readonly T[]): Kind<readonly T[]> {
  const error = `some of ${names.join(", ")}, separated by commas, or none`;
  const item = z.enum(names as unknown as readonly [T, ...T[]], { error });
  return {
    placeholder: "<names>",
    schema: z.preprocess(
      (given) => (typeof given === "string" ? splitList(given) : given),
      z.array(item, { error }),
    ),
    fromText: (given) => given,
  };
}

function splitList(given: string): string[] {
  return given.trim() === "none" ? [] : given.split(",").map((name) => name.trim());
}

/** Whole numbers from 0 on, each once, with ranges: 0-3,7. `what`: what they are, in the plural. */
export const indices = (what: string): Kind<readonly number[]> => {
  const error = `${what} from 0 on, as 0-3,7, each once (in a file: 0-3,7 or [0, 1, 2, 3, 7])`;
  return {
    placeholder: "<n-m,...>",
    schema: z.preprocess(
      (given) => (typeof given === "string" ? rangesOf(given) : typeof given === "number" ? [given] : given),
      z
        .array(z.int({ error }).min(0, { error }), { error })
        .min(1, { error })
        .refine((list) => new Set(list).size === list.length, { error }),
    ) as z.ZodType<readonly number[]>,
    fromText: (given) => given,
  };
};

function rangesOf(given: string): unknown {
  const parts = splitList(given).map((part) => /^(\d+)(?:-(\d+))?$/.exec(part));
  if (parts.some((part) => part === null)) return given;
  return parts.flatMap((part) => {
    const [from, to] = [Number(part![1]), Number(part![2] ?? part![1])];
    return Array.from({ length: Math.max(0, to - from + 1) }, (_, i) => from + i);
  });
}

/** Names, separated by commas. */
export const namesList: Kind<readonly string[]> = {
  placeholder: "<names>",
  schema: z.preprocess(
    (given) => (typeof given === "string" ? splitList(given) : given),
    z.array(z.string().min(1), { error: "names, separated by commas" }),
  ) as z.ZodType<readonly string[]>,
  fromText: (given) => given,
};

/** Numbers by name: B=16,q_proj=0.5 on the command line, a map in a file. */
const NAMED_NUMBERS =
  "names with numbers of at least 0, as B=16,q_proj=0.5 (in a file: { B: 16, q_proj: 0.5 })";
export const numbersByName: Kind<Readonly<Record<string, number>>> = {
  placeholder: "<name=x,...>",
  schema: z.record(z.string(), z.number({ error: NAMED_NUMBERS }).min(0, { error: NAMED_NUMBERS }), {
    error: NAMED_NUMBERS,
  }),
  fromText: (given) => {
    const pairs = splitList(given).map((pair) => [pair.slice(0, pair.lastIndexOf("=")), pair.slice(pair.lastIndexOf("=") + 1)] as const); // prettier-ignore
    const whole = pairs.every(([name, value]) => name !== "" && value.trim() !== "");
    return whole ? Object.fromEntries(pairs.map(([name, value]) => [name.trim(), Number(value)])) : given;
  },
};

/** Options with values of any kind: bases=16,tokens=[5, 6] on the command line, a map in a file. */
export const optionsByName: Kind<Readonly<Record<string, unknown>>> = {
  placeholder: "<name=value,...>",
  schema: z.record(z.string(), z.unknown(), {
    error: "options with values, as bases=16,tokens=[5, 6] (in a file: { bases: 16, tokens: [5, 6] })",
  }),
  fromText: (given) => {
    const parts = given.split(/,(?![^[{]*[\]}])/).map((part) => /^\s*([^=\s]+)\s*=\s*(.*\S)\s*$/.exec(part));
    if (parts.some((part) => part === null)) return given;
    try {
      return Object.fromEntries(parts.map((part) => [part![1]!, parse(part![2]!) as unknown]));
    } catch {
      return given;
    }
  },
};

/** A flag, which is present or absent. */
export const flag: Kind<boolean> = {
  placeholder: "",
  schema: z.boolean({ error: "true or false" }),
  fromText: () => true,
};

/** "qkv", "all-linear", a list of module names, or /a regular expression/. */
export const modules: Kind<Modules> = {
  placeholder: "<modules>",
  schema: z
    .union([z.string(), z.array(z.string())], {
      error: "qkv, all-linear, module names, or /a regular expression/",
    })
    .transform((given, context): Modules => {
      if (typeof given !== "string") return given;
      const group = (["qkv", "all-linear"] as const).find((name) => sameName(name, given));
      if (group !== undefined) return group;
      const pattern = /^\/(.*)\/$/.exec(given);
      if (pattern === null) return splitList(given);
      try {
        return new RegExp(pattern[1]!);
      } catch (cause) {
        const why = (cause as Error).message.slice(-80);
        context.addIssue({ code: "custom", message: `a regular expression (${why})` });
        return z.NEVER;
      }
    }),
  fromText: (given) => given,
};
