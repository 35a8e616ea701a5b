/** What two machines must have in common to work on one training or sweep: the product's version, the base model and the data. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { type Files, openWeights, type Source } from "@tiedlora/core";
import { directoryFiles } from "@tiedlora/core/node";
import { digestOf } from "tiedlora/internal/node";

/** The version of this package. */
export function productVersion(): string {
  const manifest: unknown = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  return (manifest as { version: string }).version;
}

/** The files of a model besides its weights that decide what it computes. */
const MODEL_FILES =
  /^(config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json$|^merges\.txt$|^tokenizer\.model$/;
/** Digests of models, by directory; the content of one in use does not change. */
const known = new Map<string, Promise<string>>();

/** The SHA-256 of a model's files: its config, its tokenizer and the files that its weights are read from. */
export function modelDigest(directory: string): Promise<string> {
  let digest = known.get(directory);
  if (digest === undefined) known.set(directory, (digest = digestModel(directory)));
  return digest;
}

/**
 * Throws unless the model in `directory` is the one that was announced. `wrong` says what that in `directory` is not, and `setting`
 * names another directory.
 */
export async function checkModelDigest(
  directory: string,
  announced: { readonly model: string; readonly digest: string },
  wrong: string,
  setting: string,
): Promise<void> {
  const digest = await modelDigest(directory);
  if (digest === announced.digest) return;
  throw new Error(
    `${wrong}: its SHA-256 is ${short(digest)}…, and that of ${announced.model} is ${short(announced.digest)}…; ` +
      `give the same model with ${setting}`,
  );
}

async function digestModel(directory: string): Promise<string> {
  const names = (await readdir(directory)).filter((name) => MODEL_FILES.test(name));
  const opened = new Set(names);
  const files = await directoryFiles(directory);
  const weights = await openWeights(recording(files, opened));
  await weights.close();
  return digestFiles(directory, [...opened]);
}

/** The same files, whose names are put into `opened` when they are. */
function recording(files: Files, opened: Set<string>): Files {
  const open = async (name: string): Promise<Source | null> => {
    const source = await files.open(name);
    if (source !== null) opened.add(name);
    return source;
  };
  return { name: files.name, open };
}

/** The SHA-256 of a file, or of all files in a folder. */
export async function dataDigest(path: string): Promise<string> {
  if ((await stat(path)).isFile()) return digestOf(path);
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  const names = entries.filter((one) => one.isFile()).map((one) => join(one.parentPath, one.name).slice(path.length + 1)); // prettier-ignore
  return digestFiles(path, names);
}

async function digestFiles(directory: string, names: readonly string[]): Promise<string> {
  const hash = createHash("sha256");
  for (const name of [...names].sort()) hash.update(`${await digestOf(join(directory, name))}  ${name}\n`);
  return hash.digest("hex");
}

/** A digest as it is shown. */
export const short = (digest: string): string => digest.slice(0, 12);
