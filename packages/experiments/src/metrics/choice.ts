/** Choosing among endings by their likelihood, as the Language Model Evaluation Harness does. */

/** The index of the greatest value; of equal values, the first. Throws RangeError if there are no values. */
export function argmax(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError("argmax: there are no values; expected at least one");
  return values.reduce((best, value, i) => (value > values[best]! ? i : best), 0);
}

/** 1 if the right ending has the highest log-likelihood, else 0. */
export function choiceAccuracy(logLikelihoods: readonly number[], right: number): number {
  return argmax(logLikelihoods) === right ? 1 : 0;
}

/** As `choiceAccuracy`, with each log-likelihood divided by its ending's length in characters (code points). */
export function normalizedChoiceAccuracy(
  logLikelihoods: readonly number[],
  endings: readonly string[],
  right: number,
): number {
  if (endings.length !== logLikelihoods.length) {
    throw new RangeError(
      `normalizedChoiceAccuracy: ${logLikelihoods.length} log-likelihoods were given for ${endings.length} endings; give one for each`,
    );
  }
  return choiceAccuracy(
    logLikelihoods.map((value, i) => value / Math.max(1, Array.from(endings[i]!).length)),
    right,
  );
}
