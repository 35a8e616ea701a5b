/** The data that is kept outside of the repository. */
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";

const SHARED: string =
  process.env["TIEDLORA_SHARED"] ?? resolve(import.meta.dirname, "../../../../../shared");

/** A reason to skip, or false. */
export const needsShared: string | false = existsSync(SHARED) ? false : `${SHARED} is absent`;

export const sharedPath = (...parts: string[]): string => join(SHARED, ...parts);

export function sharedJson(...parts: string[]): unknown {
  return JSON.parse(readFileSync(sharedPath(...parts), "utf8"));
}
