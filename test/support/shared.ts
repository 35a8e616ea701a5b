/** The folder of real models, data sets and reference results, which is not part of the repository. */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";

/** The folder that TIEDLORA_SHARED names, or else `shared` beside the repository. */
export const SHARED: string =
  process.env["TIEDLORA_SHARED"] ?? resolve(import.meta.dirname, "../../../shared");

/** For `test(name, { skip: without("models/x") }, …)`: false, or the reason why the test cannot run here. */
export function without(path: string): string | false {
  return existsSync(join(SHARED, path))
    ? false
    : `shared data: no ${path} (set TIEDLORA_SHARED to its folder)`;
}
