/**
 * The folder of a training run while a process works in it. The process has it for itself; earlier content is replaced only on
 * purpose, and then all at once: a run that replaces another is built beside it until it has its first checkpoint.
 */
import { access, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { FormatError } from "@tiedlora/core";
import { recoverDirectory, syncDirectory, writeFileAtomic } from "@tiedlora/core/node";
import {
  checkpointName,
  checkpointSteps,
  damageOf,
  readState,
  removeUnfinished,
  type RunState,
} from "tiedlora/internal/node";
import {
  CHECKPOINTS,
  type Holding,
  HOLDINGS,
  holdingsOf,
  LOGS,
  RUN_FILE,
  RUN_FILE_BEGINS,
  RUN_FILE_ENDS,
  runFileKind,
  writtenByRun,
} from "tiedlora/internal/node";
import { lock, withLock } from "./lock.ts";
import { writing } from "tiedlora/internal/node";

/** How a run begins: in a new folder, from the last checkpoint, or replacing an earlier run. */
export type Start = "new" | "resume" | "restart";

/** The subfolder in which a run is built that replaces another, and its name while the replacement takes place. */
const BESIDE = ".restart";
const REPLACING = ".replacing";
/** A file in that subfolder: the list of the old run's files that have no counterpart in the new run. */
const GONE = ".gone";

export class RunFolder {
  readonly directory: string;
  /** The state from which the run resumes; null for a new run. */
  readonly last: RunState | null;
  /** A sentence on each damage that was found, and on what was done about it. */
  readonly notes: readonly string[];
  readonly #release: () => Promise<void>;
  /** The folder into which files are written at present. */
  #current: string;

  private constructor(directory: string, found: Found, current: string, release: () => Promise<void>) {
    this.directory = directory;
    this.last = found.state;
    this.notes = found.notes;
    this.#current = current;
    this.#release = release;
  }

  /**
   * Locks the folder, and creates it if it does not exist. Throws, and changes nothing, if another process has it, if its
   * content would be lost ("new"), or if its run cannot be resumed ("resume").
   */
  static async open(directory: string, start: Start): Promise<RunFolder> {
    const release = await lock(directory);
    try {
      await finishReplacing(directory);
      const found = await FIND[start](directory);
      const replaces = start === "restart" && (await writtenByRun(directory)).length > 0;
      const current = replaces ? join(directory, BESIDE) : directory;
      return new RunFolder(directory, found, current, release);
    } catch (error) {
      await release();
      throw error;
    }
  }

  get checkpoints(): string {
    return join(this.#current, CHECKPOINTS);
  }

  get logs(): string {
    return join(this.#current, LOGS);
  }

  /** Prepares the folder: removes the remains of a process that was killed, and of a run without a checkpoint. */
  async begin(): Promise<void> {
    await writing(this.directory, async () => {
      await rm(join(this.directory, BESIDE), { recursive: true, force: true });
      await recoverDirectory(this.directory);
      await removeUnfinished(join(this.directory, CHECKPOINTS));
      if (this.replaces) await mkdir(this.#current);
      else if (this.last === null)
        for (const path of await writtenByRun(this.directory))
          if (path !== RUN_FILE) await rm(join(this.directory, path), { recursive: true, force: true });
    });
  }

  /** Saves the settings of the run, lines of YAML, unless the same settings are saved already. */
  async writeSettings(yaml: string): Promise<void> {
    const path = join(this.#current, RUN_FILE);
    const text = RUN_FILE_BEGINS + yaml + RUN_FILE_ENDS;
    if ((await readFile(path, "utf8").catch(() => null)) === text) return;
    await writing(this.directory, () => writeFileAtomic(path, text));
  }

  /** Whether there is an older run, which has not been replaced yet. */
  get replaces(): boolean {
    return this.#current !== this.directory;
  }

  /** Replaces the older run, if there is one, by this run, which needs a checkpoint; no file in `logs` may be open. */
  async settle(): Promise<void> {
    if (!this.replaces) return;
    await writing(this.directory, async () => {
      const fresh = await writtenByRun(this.#current);
      const gone = (await writtenByRun(this.directory)).filter((path) => !fresh.includes(path));
      await writeFile(join(this.#current, GONE), JSON.stringify(gone), { flush: true });
      await rename(this.#current, join(this.directory, REPLACING)); // from here on the new run counts
      this.#current = this.directory;
      await finishReplacing(this.directory);
    });
  }

  /** Unlocks the folder. A run without a checkpoint that was to replace another is deleted. */
  async close(): Promise<void> {
    if (this.replaces) await rm(this.#current, { recursive: true, force: true }).catch(() => undefined);
    await this.#release();
  }
}

/** Completes `settle`, from any point at which it was interrupted. */
async function finishReplacing(directory: string): Promise<void> {
  const from = join(directory, REPLACING);
  const gone = await readFile(join(from, GONE), "utf8").catch(() => null);
  if (gone !== null) {
    const written = await writtenByRun(directory);
    for (const path of (JSON.parse(gone) as string[]).filter((one) => written.includes(one)))
      await rm(join(directory, path), { recursive: true, force: true });
    for (const path of await writtenByRun(from)) {
      await rm(join(directory, path), { recursive: true, force: true });
      await mkdir(dirname(join(directory, path)), { recursive: true });
      await rename(join(from, path), join(directory, path));
    }
    await syncDirectory(directory);
  }
  await rm(from, { recursive: true, force: true });
}

interface Found {
  readonly state: RunState | null;
  readonly notes: readonly string[];
}

const NOTHING: Found = { state: null, notes: [] };

/** For each way to begin: finds the state to begin from. Throws if the content of the folder does not permit it. */
const FIND: Readonly<Record<Start, (directory: string) => Promise<Found>>> = {
  async new(directory) {
    const holdings = await checkPlace(directory);
    if (holdings.has("run")) throw new Error(await inTheWay(directory));
    if (holdings.has("adapter"))
      throw new Error(
        `--out ${directory}: an adapter is in there; replace it by --restart, train on from it into another directory by ` +
          `--init-from ${directory}, or give another directory`,
      );
    return NOTHING;
  },
  async restart(directory) {
    await checkPlace(directory);
    return NOTHING;
  },
  async resume(directory) {
    const holdings = await checkPlace(directory);
    const found = await newestWhole(directory);
    if (found.state === null && holdings.has("adapter"))
      throw new Error(
        `--out ${directory}: there is no checkpoint to go on from, but an adapter, which would be lost; train on from it into ` +
          `another directory by --init-from ${directory}, or throw it away by --restart`,
      );
    return found;
  },
};

/** Throws if the folder may not hold a run, however it begins; returns the kinds of its content. */
async function checkPlace(directory: string): Promise<ReadonlySet<Holding>> {
  const holdings = await holdingsOf(directory);
  for (const other of ["sweep", "model"] as const) {
    if (holdings.has(other))
      throw new Error(`--out ${directory}: ${HOLDINGS[other]} is in there; give another directory`);
  }
  if ((await runFileKind(join(directory, RUN_FILE))) === "by hand")
    throw new Error(
      `--out ${directory}: the ${RUN_FILE} in there was not written by a run, which would write its own in its place; give ` +
        `it another name, or give another directory`,
    );
  return holdings;
}

async function inTheWay(directory: string): Promise<string> {
  const state = await newestWhole(directory).then(
    (found) => found.state,
    () => null,
  );
  const where = `--out ${directory}: `;
  if (state === null)
    return `${where}a run with damaged checkpoints is in there; throw it away by --restart, or give another directory`;
  if (state.finished)
    return `${where}a finished run of ${state.step} steps is in there; replace it by --restart, or give another directory`;
  return (
    `${where}a run that is not finished is in there, at step ${state.step}; go on with it by --resume, throw ` +
    `it away by --restart, or give another directory`
  );
}

/** The state of a run's newest undamaged checkpoint; null without checkpoints. Throws FormatError if all are damaged. */
export async function lastState(directory: string): Promise<RunState | null> {
  return (await newestWhole(directory)).state;
}

/** The newest undamaged checkpoint. Throws FormatError if there are checkpoints, but all are damaged. */
async function newestWhole(directory: string): Promise<Found> {
  const checkpoints = join(directory, CHECKPOINTS);
  const damaged: string[] = [];
  for (const step of (await checkpointSteps(checkpoints)).reverse()) {
    const damage = await damageOf(checkpoints, step);
    if (damage !== null) {
      damaged.push(`${checkpointName(step)} is damaged (${damage})`);
      continue;
    }
    const state = await readState(checkpoints, step);
    const fallback =
      damaged.length === 0 ? [] : [`${damaged.join("; ")}: going back to ${checkpointName(step)}`];
    const best = await bestOf(checkpoints, state);
    return { state: best.state, notes: [...fallback, ...best.notes] };
  }
  if (damaged.length === 0) return NOTHING;
  throw new FormatError({
    file: checkpoints,
    found: `no checkpoint that is whole: ${damaged.join("; ")}`,
    expected: "one to go on from",
    hint: "Throw the run away by --restart, or give another directory.",
  });
}

/** The state, without its best step if the checkpoint of that step is damaged. */
async function bestOf(checkpoints: string, state: RunState): Promise<{ state: RunState; notes: string[] }> {
  const { best, step } = state;
  if (best === null || best.step === step) return { state, notes: [] };
  const damage = await damageOf(checkpoints, best.step);
  if (damage === null) return { state, notes: [] };
  const note =
    `${checkpointName(best.step)}, the best step so far with a validation loss of ${best.loss.toFixed(4)}, is damaged ` +
    `(${damage}): the best step is looked for anew after step ${step}`;
  return { state: { ...state, best: null, sinceBest: 0 }, notes: [note] };
}

/** Whether the folder has the settings of a run to resume. Throws if they are cut off, or were not written by a run. */
export async function checkRunFile(directory: string): Promise<boolean> {
  const cutOff = await access(join(directory, REPLACING)).then(() => true, () => false); // prettier-ignore
  if (cutOff) await withLock(directory, () => finishReplacing(directory)); // the settings belong to what is put in place
  const path = join(directory, RUN_FILE);
  const kind = await runFileKind(path);
  if (kind === null) return false;
  if (kind === "whole") return true;
  throw new Error(
    kind === "cut off"
      ? `${path} is cut off: its last line, "${RUN_FILE_ENDS.trim()}", is missing. Throw the run away by --restart, with all its settings`
      : `${path} was not written by a run: there is nothing to go on with in ${directory}`,
  );
}
