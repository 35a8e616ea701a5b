/**
 * SHA-256 digests of the files of a folder, in a file of the format that sha256sum writes and checks. They show, before a file is
 * used, whether it is damaged, cut off, or from another folder.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import type { OutputFile } from "../output-file.ts";

const DIGESTS_FILE = "SHA256SUMS";

/** Appends the file of digests to `files`; each digest is computed while its file is written. */
export function withDigests(files: readonly OutputFile[]): OutputFile[] {
  const lines: string[] = [];
  const tapped = files.map(([name, content]): OutputFile => [name, tap(content, (digest) => lines.push(`${digest}  ${name}\n`))]); // prettier-ignore
  async function* digests(): AsyncGenerator<Uint8Array> {
    yield Buffer.from(lines.join("")); // read last, after all other files are written
  }
  return [...tapped, [DIGESTS_FILE, digests()]];
}

async function* tap(content: OutputFile[1], tell: (digest: string) => void): AsyncGenerator<Uint8Array> {
  const hash = createHash("sha256");
  const pieces =
    typeof content === "string"
      ? [Buffer.from(content)]
      : content instanceof Uint8Array
        ? [content]
        : content;
  for await (const piece of pieces) {
    hash.update(piece);
    yield piece;
  }
  tell(hash.digest("hex"));
}

/** Describes what is wrong with a folder that should hold the files `names` and their digests; null if nothing is. */
export async function findDamage(directory: string, names: readonly string[]): Promise<string | null> {
  const text = await ifThere(readFile(join(directory, DIGESTS_FILE), "utf8"));
  if (text === null) return `${DIGESTS_FILE} is missing`;
  const expected = new Map<string, string>();
  for (const line of text.split("\n").slice(0, -1)) {
    const [, digest, name] = /^([0-9a-f]{64}) {2}(.+)$/.exec(line) ?? [];
    if (digest === undefined || name === undefined) return `${DIGESTS_FILE} is damaged`;
    expected.set(name, digest);
  }
  for (const name of new Set([...names, ...expected.keys()])) {
    const digest = expected.get(name);
    if (digest === undefined) return `${DIGESTS_FILE} has no digest of ${name}`;
    const found = await ifThere(digestOf(join(directory, name)));
    if (found === null) return `${name} is missing`;
    if (found !== digest) return `${name} has changed since it was written: its digest differs`;
  }
  return null;
}

/** The SHA-256 of a file, in hexadecimal. */
export async function digestOf(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}

/** The result of reading a file; null if there is no such file. */
async function ifThere<T>(read: Promise<T>): Promise<T | null> {
  try {
    return await read;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR" || code === "EISDIR") return null;
    throw error;
  }
}
