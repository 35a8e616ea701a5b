/**
 * The folder of a sweep: runs/ID.json for each run that is finished, failed/ID.json for each that failed. Files appear whole,
 * so a sweep that was killed at any moment goes on with what is missing.
 */
import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { writeFileAtomic } from "@tiedlora/core/node";
import type { RunFailure, RunResult } from "../../sweep/config.ts";
import { parseFailure, parseResult } from "../../sweep/results.ts";
import { removeLeftovers, writing } from "../writing.ts";

export class RunStore {
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  /** Makes the folder, and finds out now whether it can be written. */
  async prepare(): Promise<void> {
    for (const kind of ["runs", "failed"]) {
      const folder = join(this.directory, kind);
      await writing(this.directory, () => mkdir(folder, { recursive: true }));
      await removeLeftovers(folder);
    }
    await removeLeftovers(this.directory);
  }

  /** Keeps the text of the sweep's own file beside its results. */
  async describe(text: string): Promise<void> {
    await this.#write("sweep.yaml", text);
  }

  async finish(result: RunResult): Promise<void> {
    await this.#write(nameOf("runs", result.id), json(result));
    await rm(join(this.directory, nameOf("failed", result.id)), { force: true });
  }

  async fail(failure: RunFailure): Promise<void> {
    await this.#write(nameOf("failed", failure.id), json(failure));
  }

  #write(name: string, text: string): Promise<void> {
    return writing(this.directory, () => writeFileAtomic(join(this.directory, name), text));
  }

  finished(): Promise<RunResult[]> {
    return this.#all("runs", parseResult);
  }

  failures(): Promise<RunFailure[]> {
    return this.#all("failed", parseFailure);
  }

  /** In the order of their names. A file that cannot be read is an error, which names it. */
  async #all<T>(kind: "runs" | "failed", parse: (json: string, file: string, id: string) => T): Promise<T[]> {
    const folder = join(this.directory, kind);
    const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return [];
      throw error;
    });
    const files = names.filter((name) => name.endsWith(".json")).sort();
    return Promise.all(
      files.map(async (name) => {
        const path = join(folder, name);
        return parse(await readFile(path, "utf8"), path, basename(name, ".json"));
      }),
    );
  }
}

const nameOf = (kind: "runs" | "failed", id: string): string => join(kind, `${id}.json`);
const json = (value: unknown): string => `${JSON.stringify(value, null, 1)}\n`;
