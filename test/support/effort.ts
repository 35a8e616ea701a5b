/** How many random cases the tests try: all in CI, a part on a developer's machine, many more in `npm run test:long`. */
export const LONG: boolean = process.env["TIEDLORA_LONG"] === "1";
const QUICK: boolean = !LONG && process.env["CI"] !== "true";

/** The part of the random cases that `npm test` tries outside CI. */
const PART = 0.2;

/** The number or share of random cases to run here, given the one for CI: smaller outside CI, unless the run is long. */
export const part = (full: number): number => (QUICK ? PART * full : full);

/** The part of the conformance suite to run on a backend that compiles slowly: its core outside CI, unless the run is long. */
export const slowSubset: "core" | "all" = QUICK ? "core" : "all";
