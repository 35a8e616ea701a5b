/** The kinds of values in a sweep's file, with errors that say what was expected. */
import { z } from "zod";
import { suggestion } from "tiedlora/internal";

export const named = (what: string, names: readonly string[]): z.ZodType<string> =>
  z.string({ error: `expected the name of a ${what}` }).refine((name) => names.includes(name), {
    error: ({ input }) => `there is no ${what} "${String(input)}"; ${suggestion(String(input), names)}`,
  });

export const whole = (min: number): z.ZodType<number> => {
  const error = `expected a whole number of at least ${min}`;
  return z.int({ error }).min(min, { error });
};
export const above0: z.ZodType<number> = z
  .number({ error: "expected a number above 0" })
  .min(1e-30, { error: "expected a number above 0, from 1e-30" })
  .max(1e30, { error: "expected a number of at most 1e30" });
export const share: z.ZodType<number> = z.number().min(0).lt(1);

/** One value or a list of values. */
export const listOf = <T>(item: z.ZodType<T>): z.ZodType<T[]> =>
  z.preprocess(
    (given) => (Array.isArray(given) || given === undefined ? given : [given]),
    z
      .array(item, { error: "expected a value or a list of values" })
      .min(1, { error: "the list is empty; expected at least one value" }),
  );

/** A value whose schema depends on what was given, so that its error concerns what was meant. */
export const either = <T>(schemaOf: (given: unknown) => z.ZodType<T>): z.ZodType<T> =>
  z.unknown().transform((given, context): T => {
    const result = schemaOf(given).safeParse(given);
    if (result.success) return result.data;
    for (const issue of result.error.issues) context.issues.push({ ...issue, input: given } as never);
    return z.NEVER;
  });
