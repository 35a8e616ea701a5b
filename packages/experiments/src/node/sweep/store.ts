/**
 * The folder of a sweep: runs/ID.json for each run that has finished, failed/ID.json for each that failed, unfinished/ for the
 * states of runs that are being trained. Files are written atomically, so a sweep that was killed at any moment can continue
 * with the missing runs, and several processes can share the folder.
 */
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rm, rmdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { recoverDirectory, writeFileAtomic, writeFileOnce, writeFileOnceSync } from "@tiedlora/core/node";
import {
  isWhole,
  type Outcome,
  type RunConfig,
  type RunFailure,
  type RunResult,
  wholeId,
} from "../../sweep/config.ts";
import { parseFailure, parseResult } from "../../sweep/results.ts";
import { HOLDINGS, holdingsOf } from "tiedlora/internal/node";
import { writeError, writing } from "tiedlora/internal/node";
import type { Decision } from "../../sweep/halving.ts";

/** The copy of the sweep's own file, as of the last start. */
const SPEC_FILE = "sweep.yaml";
const UNFINISHED = "unfinished";

/** The results of a sweep in its folder, a file for each run. */
export class RunStore {
  /** The folder. */
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  /**
   * Creates the folder and saves the text of the sweep's own file in it, which shows early whether the folder can be written.
   * Returns how the text compares to the one that was there. Throws if something else is in the folder.
   */
  async prepare(text: string): Promise<"changed" | "same" | "new"> {
    const holdings = await holdingsOf(this.directory);
    const other = [...holdings].find((one) => one !== "sweep");
    if (other !== undefined)
      throw new Error(`--out ${this.directory}: ${HOLDINGS[other]} is in there; give another directory`);
    const before = await this.spec();
    if (before !== null && before !== text && !holdings.has("sweep"))
      throw new Error(
        `--out ${this.directory}: there is another ${SPEC_FILE} in there, which would be replaced; give it another name, or ` +
          `give another directory`,
      );
    for (const kind of ["runs", "failed"] as const) {
      const folder = join(this.directory, kind);
      await writing(this.directory, () => mkdir(folder, { recursive: true }));
      await recoverDirectory(folder);
    }
    await recoverDirectory(this.directory);
    if (before !== text) await this.#write(SPEC_FILE, text);
    return before === null ? "new" : before === text ? "same" : "changed";
  }

  /** The path of the sweep's own file. */
  get specFile(): string {
    return join(this.directory, SPEC_FILE);
  }

  /** The text of the sweep's own file; null if there is none. */
  async spec(): Promise<string | null> {
    return readFile(this.specFile, "utf8").catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT" || error.code === "ENOTDIR") return null;
      throw error;
    });
  }

  /**
   * Saves the result of a run, and removes the record of an earlier failure and the state. If the run has a result, that one
   * stays; returns whether it was this one that was saved.
   */
  async finish(result: Outcome): Promise<boolean> {
    const path = join(this.directory, nameOf("runs", result.id));
    const first = await writing(this.directory, () => writeFileOnce(path, json(result)));
    if (this.has("failed", result.id))
      await rm(join(this.directory, nameOf("failed", result.id)), { force: true });
    const saved = this.checkpoint(result.config);
    if (isWhole(result) && existsSync(saved)) await rm(saved, { force: true });
    return first;
  }

  /** The file for the state of a run while it is trained; a search goes on from it with a run that it ended early. */
  checkpoint(config: RunConfig): string {
    return join(this.directory, UNFINISHED, `${wholeId(config)}.safetensors`);
  }

  /** Removes, after a sweep, the states of runs except those that failed, and folders that are empty. */
  async tidy(): Promise<void> {
    const failed = await this.ids("failed");
    const unfinished = join(this.directory, UNFINISHED);
    for (const name of (await readdir(unfinished).catch(absent)) ?? []) {
      const id = basename(name, ".safetensors");
      if (!failed.some((one) => one.startsWith(id))) await rm(join(unfinished, name), { force: true });
    }
    for (const folder of [unfinished, join(this.directory, "claims")])
      await rmdir(folder).catch(() => undefined); // it is not there, or something is in it
  }

  /** Saves the reason for the failure of a run. */
  async fail(failure: RunFailure): Promise<void> {
    await this.#write(nameOf("failed", failure.id), json(failure));
  }

  /** The ids of all runs that have a result, or a record of a failure, in their order; or those that name decisions. */
  async ids(kind: "runs" | "failed" | "decisions"): Promise<string[]> {
    const names = (await readdir(join(this.directory, kind)).catch(absent)) ?? [];
    const files = names.filter((name) => name.endsWith(".json") && !name.startsWith("."));
    return files.map((name) => basename(name, ".json")).sort();
  }

  /** The result of a run; null if it has none. */
  async result(id: string): Promise<Outcome | null> {
    const path = join(this.directory, nameOf("runs", id));
    const text = await readFile(path, "utf8").catch(absent);
    return text === null ? null : parseResult(text, path, id);
  }

  /** Whether a run has a result, or a record of a failure. */
  has(kind: "runs" | "failed", id: string): boolean {
    return existsSync(join(this.directory, nameOf(kind, id)));
  }

  /** A word for what is recorded of a run, which changes when that is written anew; null if nothing is recorded. */
  async stamp(kind: "failed", id: string): Promise<string | null> {
    const found = await stat(join(this.directory, nameOf(kind, id))).catch(absent);
    return found === null ? null : `${found.mtimeMs} ${found.ino}`;
  }

  #write(name: string, text: string): Promise<void> {
    return writing(this.directory, () => writeFileAtomic(join(this.directory, name), text));
  }

  /**
   * The results of all runs that are finished, those that a search ended early among them. Without curves, of which there may be
   * ten thousand, `curve` is empty.
   */
  outcomes({ curves = true }: { readonly curves?: boolean } = {}): Promise<Outcome[]> {
    return this.#all("runs", (...file) => {
      const outcome = parseResult(...file);
      return curves ? outcome : { ...outcome, curve: [] };
    });
  }

  /** Writes down why a run of a search goes on; a decision that is there already stays. */
  decide(decision: Decision): void {
    try {
      writeFileOnceSync(join(this.directory, "decisions", `${decision.runs[0]}.json`), json(decision));
    } catch (error) {
      throw writeError(this.directory, error);
    }
  }

  /** The ids that name the decisions of a search. */
  async decided(): Promise<ReadonlySet<string>> {
    return new Set(await this.ids("decisions"));
  }

  /** The results of all whole runs that are finished. */
  async finished(): Promise<RunResult[]> {
    return (await this.outcomes()).filter(isWhole);
  }

  /** The records of all runs that failed. */
  failures(): Promise<RunFailure[]> {
    return this.#all("failed", parseFailure);
  }

  /** All records of one kind, in the order of the file names. Rejects if one cannot be read, with an error that names its file. */
  async #all<T>(kind: "runs" | "failed", parse: (json: string, file: string, id: string) => T): Promise<T[]> {
    const ids = await this.ids(kind);
    const records: T[] = [];
    for (let i = 0; i < ids.length; i += AT_ONCE) {
      const some = ids.slice(i, i + AT_ONCE).map(async (id) => {
        const path = join(this.directory, nameOf(kind, id));
        const text = await readFile(path, "utf8").catch(absent); // a failure may be gone: the run was repeated meanwhile
        return text === null ? null : parse(text, path, id);
      });
      for (const record of await Promise.all(some)) if (record !== null) records.push(record);
    }
    return records;
  }
}

/** Files that are read at once: a sweep may have ten thousand. */
const AT_ONCE = 64;

const absent = (error: NodeJS.ErrnoException): null => {
  if (error.code === "ENOENT") return null;
  throw error;
};
const nameOf = (kind: "runs" | "failed", id: string): string => join(kind, `${id}.json`);
const json = (value: unknown): string => `${JSON.stringify(value, null, 1)}\n`;
