/**
 * How tests start programs. From the packages' sources, so that nothing has to be compiled first; in CI, where `scripts/test.ts` compiles
 * the packages before, from the compiled ones, which start in a third of the time and are what users get.
 */
import { join } from "node:path";

/** Whether the packages have been compiled for this run. */
const COMPILED = process.env["TIEDLORA_TEST_COMPILED"] === "1";

/** The arguments of Node that run a program in TypeScript, given its path. */
export const typescriptProgram = (path: string): string[] =>
  ["--import", "tsx", ...(COMPILED ? [] : ["--conditions=@tiedlora/source"]), path]; // prettier-ignore

/** The arguments of Node that run the command `tiedlora`. */
export function commandProgram(): string[] {
  const folder = join(import.meta.dirname, "../../packages/cli/test/support");
  return COMPILED ? [join(folder, "tiedlora.mjs")] : typescriptProgram(join(folder, "tiedlora.ts"));
}
