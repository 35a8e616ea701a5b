/** How a sweep's file says which of the combinations of its settings run: all, some at random, or by successive halving. */
import { isRecord } from "@tiedlora/core";
import { suggestion } from "tiedlora/internal";
import { z } from "zod";
import { either, whole } from "./schema.ts";

/** Successive halving: all combinations train a little, and the best share of them trains on, again and again. */
export interface Halving {
  /**
   * The steps of the first rung, behind those of the warm-up. The next rung has `factor` times as many, and so on; the last one is a
   * whole run of `train.steps`.
   */
  readonly "min-steps": number;
  /** One of so many goes on to the next rung. */
  readonly factor: number;
  /** The number of combinations, drawn at random, that take part. Default: all. */
  readonly random?: number | undefined;
  /** The seed of the draw, and of the order in which combinations are looked at. */
  readonly seed: number;
}

/** The combinations that run. */
export type Search =
  "grid" | { readonly random: number; readonly seed: number } | { readonly "successive-halving": Halving };

const RANDOM = { random: whole(1), seed: whole(0).default(0) };
const HALVING = {
  "min-steps": whole(1),
  factor: whole(2).default(3),
  random: whole(1).optional(),
  seed: whole(0).default(0),
};

const EXPECTED =
  "expected grid; { random: 20 } for 20 of its runs, drawn at random; or { successive-halving: { min-steps: 10 } }, which trains the " +
  "most promising on";

const mistake = (error: string): z.ZodType<never> => z.never({ error });

/** An object with these keys alone; the error for another key names the nearest one. */
const only = <T extends z.ZodRawShape>(shape: T): z.ZodType<z.output<z.ZodObject<T>>> =>
  either<z.output<z.ZodObject<T>>>((given) => {
    const keys = Object.keys(shape);
    const other = isRecord(given) ? Object.keys(given).find((key) => !keys.includes(key)) : undefined;
    if (other !== undefined) return mistake(`there is no "${other}"; ${suggestion(other, keys)}`);
    return z.object(shape);
  });

/** The schema of `search`, by what was given. */
export const SEARCH: z.ZodType<Search> = either((given): z.ZodType<Search> => {
  if (!isRecord(given)) return z.literal("grid", { error: EXPECTED });
  const keys = Object.keys(given);
  if (keys.includes("successive-halving")) {
    const other = keys.find((key) => key !== "successive-halving");
    if (other === undefined) return z.object({ "successive-halving": only(HALVING) });
    const inside = other in HALVING;
    return mistake(`${other} beside successive-halving; ${inside ? `give ${other} inside of it` : EXPECTED}`);
  }
  if (keys.includes("random")) return only(RANDOM);
  const [key = ""] = keys;
  if (key in HALVING)
    return mistake(
      `${key} belongs into successive-halving: { successive-halving: { ${key}: ${String(given[key])} } }`,
    );
  return mistake(`there is no search "${key}"; ${suggestion(key, ["grid", "random", "successive-halving"])}`);
});

/** The settings of successive halving; null if the search is another one. */
export function halvingOf({ search }: { readonly search: Search }): Halving | null {
  return typeof search === "object" && "successive-halving" in search ? search["successive-halving"] : null;
}

/** What the rungs of a search depend on. */
interface Rungful {
  readonly search: Search;
  readonly vary: { readonly steps?: unknown; readonly warmup?: readonly number[] | undefined };
  readonly train: { readonly steps: number; readonly warmup: number };
  readonly evaluate: { readonly every: number };
}

/** The rungs of a search. */
export interface Rungs {
  /** Their number; the last one is a whole run. */
  readonly count: number;
  /**
   * The step at which a run with such a warm-up is compared: at the first validation so many steps behind its warm-up. In the middle of it,
   * a run with a long warm-up would be compared while its rate is lower than that of the others.
   */
  readonly at: (rung: number, warmup: number) => number;
}

/** The rungs of a search; a single one if runs are too short for more. */
export function rungsOf({ search, vary, train, evaluate }: Rungful): Rungs {
  const { "min-steps": least, factor } = halvingOf({ search })!;
  const { steps } = train;
  const { every } = evaluate;
  const at = (rung: number, warmup: number): number =>
    Math.ceil((warmup + least * factor ** rung) / every) * every;
  const longest = longestWarmup({ vary, train });
  let count = 1;
  while (at(count - 1, longest) < steps) count++;
  return { count, at: (rung, warmup) => (rung + 1 === count ? steps : at(rung, warmup)) };
}

/** A warm-up takes no longer than the run. */
function longestWarmup({ vary, train }: Pick<Rungful, "vary" | "train">): number {
  return Math.min(train.steps, Math.max(...(vary.warmup ?? [train.warmup])));
}

/** What contradicts successive halving in a sweep's file; null if nothing does. */
export function halvingMistake(spec: Rungful): string | null {
  const halving = halvingOf(spec);
  if (halving === null) return null;
  const { vary, train, evaluate } = spec;
  const { "min-steps": least } = halving;
  if (vary.steps !== undefined)
    return "vary.steps: successive halving itself decides how many steps a run has, up to train.steps; leave out vary.steps";
  if (rungsOf(spec).count > 1) return null;
  const warmup = longestWarmup(spec);
  return (
    `search.successive-halving.min-steps ${least}: a whole run has ${train.steps} steps (train.steps), so none would stop early; give fewer` +
    `${warmup > 0 ? `: they begin behind the warm-up of ${warmup}` : ""}, and validations (evaluate.every ${evaluate.every}) in time`
  );
}
