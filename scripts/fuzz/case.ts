/** One case: valid files with none, one or a few mutations, all determined by target, seed and number. */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { mutate } from "./mutate.ts";
import { Random } from "./random.ts";
import type { CaseFiles, Target } from "./target.ts";

export interface Case {
  readonly files: CaseFiles;
  /** Whether nothing was changed, so that the case must be accepted. */
  readonly valid: boolean;
}

/** One in this many cases is left undamaged. */
const VALID_EVERY = 25;

export async function makeCase(name: string, target: Target, seed: number, number: number): Promise<Case> {
  const random = new Random(name, seed, number);
  const files = await target.seed(random);
  if (number % VALID_EVERY === 0) return { files, valid: true };
  const names = [...files.keys()];
  const changes = random.pick([1, 1, 1, 2, 2, 4]);
  for (let i = 0; i < changes; i++) {
    const file = random.pick(names);
    if (names.length > 1 && random.chance(0.01)) files.delete(file);
    const bytes = files.get(file);
    if (bytes !== undefined) files.set(file, mutate(file, bytes, random, target.words ?? []));
  }
  return { files, valid: false };
}

/** Empties the directory, and writes the files into it. */
export function writeCase(files: CaseFiles, directory: string): void {
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  for (const [file, bytes] of files) {
    const path = join(directory, file);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, bytes);
  }
}
