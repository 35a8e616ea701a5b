/** Resolves a path to data: it is one file of examples, or a directory with train, valid and test files. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { DataError } from "../data/errors.ts";
import { isDataFile, withoutGz } from "../data/records.ts";
import { standardInput, textFile } from "./files.ts";
import type { TextFile } from "../data/text.ts";

/** The file names of each part, without the extension. */
const PARTS = {
  train: ["train", "training"],
  valid: ["valid", "validation", "val", "dev", "devset"],
  test: ["test", "testing"],
} as const;

export type DataPart = keyof typeof PARTS;
export const DATA_PARTS: readonly DataPart[] = Object.keys(PARTS) as DataPart[];

/**
 * The file of one part of the data; null if there is none. If `path` is a file, or "-" for standard input, it is the "train" part. Throws DataError if two
 * files could be the part, or if a directory has no "train" part.
 */
export async function dataFile(path: string, part: DataPart): Promise<TextFile | null> {
  if (path === "-") return part === "train" ? standardInput() : null;
  const found = await stat(path).catch(() => null);
  if (!found?.isDirectory()) return part === "train" ? textFile(path) : null;
  const names = (await readdir(path)).filter(isDataFile).sort();
  const stem = (name: string): string =>
    withoutGz(name)
      .replace(/\.[^.]+$/, "")
      .toLowerCase();
  const matching = names.filter((name) => (PARTS[part] as readonly string[]).includes(stem(name)));
  if (matching.length > 1)
    throw new DataError(path, null, `${matching.join(" and ")} could both be the ${part} data; remove one`);
  if (matching[0] !== undefined) return textFile(join(path, matching[0]));
  if (part !== "train") return null;
  throw new DataError(
    path,
    null,
    `no train.jsonl (or .csv, .tsv, .json, .txt) in this directory; it has ${names.join(", ") || "no data files"}. Rename ` +
      `one, or give a file`,
  );
}
