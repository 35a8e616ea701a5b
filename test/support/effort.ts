/** How many random cases the tests try: all of them in CI, a part on a developer's machine, many more with `npm run test:long`. */
export const LONG: boolean = process.env["TIEDLORA_LONG"] === "1";
const QUICK: boolean = !LONG && process.env["CI"] !== "true";

/** The part of the random cases that `npm test` tries where it is not in CI. */
const PART = 0.2;

/** A number of random cases, or a share of all, as CI has it: less of it elsewhere. */
export const part = (full: number): number => (QUICK ? PART * full : full);
