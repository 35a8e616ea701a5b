/** Changes checkpoints on purpose. */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Changes a text file of a checkpoint, and makes it look as if it had been written like that. */
export function edit(checkpoint: string, name: string, change: (text: string) => string): void {
  const path = join(checkpoint, name);
  writeFileSync(path, change(readFileSync(path, "latin1")), "latin1");
  sign(checkpoint);
}

/** Computes the digests of a checkpoint again. */
export function sign(checkpoint: string): void {
  const digest = (name: string): string => createHash("sha256").update(readFileSync(join(checkpoint, name))).digest("hex"); // prettier-ignore
  const names = readdirSync(checkpoint).filter((name) => name !== "SHA256SUMS");
  writeFileSync(join(checkpoint, "SHA256SUMS"), names.map((name) => `${digest(name)}  ${name}\n`).join(""));
}
