/** Runs the conformance suite under node:test. */
import { after, test } from "node:test";
import { conformance, type ConformanceOptions, type MakeDevice } from "@tiedlora/test";
import { LONG, part } from "./effort.ts";

/** The seed in TIEDLORA_SEED, which repeats the random cases of the run that printed it. Throws if it is not an integer. */
export function seed(): { seed?: number } {
  const given = process.env["TIEDLORA_SEED"];
  if (given === undefined) return {};
  if (!/^-?\d+$/.test(given)) throw new Error(`TIEDLORA_SEED: "${given}" is no integer`);
  return { seed: Number(given) };
}

interface RegisterOptions extends ConformanceOptions {
  readonly skip?: string | false;
  /** A prefix for the names of the tests. */
  readonly title?: string;
  /** Matches the names of the cases to run; default: all. */
  readonly only?: RegExp;
}

/** The effort of `npm run test:long`: 2,000 random kernels and 2,000 random graphs. */
const LONG_EFFORT = { effort: 5, randomCases: 2000 };

/** Registers every case as a test. `effort` is the effort in CI; other runs scale or replace it. */
export function register(makeDevice: MakeDevice, options: RegisterOptions = {}): void {
  const effort = LONG ? LONG_EFFORT : { effort: part(options.effort ?? 1) };
  const suite = conformance(makeDevice, { ...seed(), ...options, ...effort });
  const cases = suite.cases.filter(({ name }) => options.only?.test(name) ?? true);
  for (const { name, run } of cases) {
    test(`${options.title ?? ""}${name}`, { skip: options.skip ?? false }, run);
  }
  after(() => suite.close());
}
