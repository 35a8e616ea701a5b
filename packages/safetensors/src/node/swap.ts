/**
 * Replaces several files of a directory together. The old files are set aside under other names while the new ones get their
 * names. During that time a marker file records the plan, so that after a crash the replacement can be finished or undone:
 * readers find the old files, the new ones or none, but never a mixture.
 */
import { readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isAbandoned, OWNER_TAG } from "./owner.ts";

/**
 * The marker is `.KEY.OWNER.swap`; an old file is set aside as `.NAME.OWNER.old`. KEY is the key file, whose presence tells readers
 * that all files are there: it is the last to get its name and the first to be set aside.
 */
const MARKER = new RegExp(String.raw`^\.(.+)\.(${OWNER_TAG})\.swap$`);
const asideName = (name: string, batch: string): string => `.${name}.${batch}.old`;

interface Plan {
  /** The names of the new files, the key file last. */
  readonly fresh: readonly string[];
  /** The names, of new files and of files to remove, that existed before: these files are set aside. */
  readonly old: readonly string[];
}

export class Swap {
  readonly #directory: string;
  readonly #batch: string;
  readonly #plan: Plan;
  readonly #marker: string;

  private constructor(directory: string, batch: string, plan: Plan) {
    this.#directory = directory;
    this.#batch = batch;
    this.#plan = plan;
    this.#marker = join(directory, `.${plan.fresh.at(-1)}.${batch}.swap`);
  }

  /**
   * Writes the marker and sets the old files aside; if that fails, undoes it and rejects.
   * @param batch what `ownerTag` returned
   * @param fresh names of the new files, the key file last
   * @param remove names of files to remove
   */
  static async begin(
    directory: string,
    batch: string,
    fresh: readonly string[],
    remove: readonly string[],
  ): Promise<Swap> {
    const there = await readdir(directory);
    const old = [...remove, ...fresh].filter((name) => there.includes(name)).reverse();
    const swap = new Swap(directory, batch, { fresh, old });
    try {
      await writeFile(swap.#marker, JSON.stringify(swap.#plan), { flag: "wx", flush: true });
      for (const name of old) await rename(join(directory, name), join(directory, asideName(name, batch)));
      return swap;
    } catch (error) {
      await swap.undo();
      throw error;
    }
  }

  /** Removes the files set aside, and the marker. To be called after the last new file got its name. */
  finish(): Promise<void> {
    return finish(this.#directory, this.#batch, this.#plan, this.#marker);
  }

  /** Restores the old files as far as possible, without rejecting; `recoverSwaps` does the rest later. */
  async undo(): Promise<void> {
    await undo(this.#directory, this.#batch, this.#plan, this.#marker).catch(() => undefined);
  }
}

async function finish(directory: string, batch: string, { old }: Plan, marker: string): Promise<void> {
  for (const name of old) await rm(join(directory, asideName(name, batch)), { force: true });
  await rm(marker, { force: true });
}

/**
 * Restores the old files: first the new key file is removed, and last the old one restored, because `recoverSwaps` undoes a
 * replacement as long as the key file is missing.
 */
async function undo(directory: string, batch: string, { fresh, old }: Plan, marker: string): Promise<void> {
  const there = await readdir(directory);
  const key = fresh.at(-1);
  // If the key file existed before and was not set aside, then the file of its name is still the old one.
  if (key !== undefined && (!old.includes(key) || there.includes(asideName(key, batch))))
    await rm(join(directory, key), { force: true });
  for (const name of fresh) if (!old.includes(name)) await rm(join(directory, name), { force: true });
  for (const name of [...old].reverse()) {
    const aside = asideName(name, batch);
    if (there.includes(aside)) await rename(join(directory, aside), join(directory, name));
  }
  await rm(marker, { force: true });
}

/** Completes the replacements that dead processes have begun: finishes one if its key file exists, and undoes it otherwise. */
export async function recoverSwaps(directory: string): Promise<void> {
  const there = await readdir(directory).catch((): string[] => []);
  for (const file of there) {
    const [, key, batch] = MARKER.exec(file) ?? [];
    const marker = join(directory, file);
    if (key === undefined || batch === undefined || !(await isAbandoned(batch, marker))) continue;
    const plan = planOf(await readFile(marker, "utf8"));
    await (there.includes(key) ? finish : undo)(directory, batch, plan, marker);
  }
}

/** Parses a marker. A truncated marker gives an empty plan: files are set aside only after the marker is complete on disk. */
function planOf(text: string): Plan {
  try {
    return JSON.parse(text) as Plan;
  } catch {
    return { fresh: [], old: [] };
  }
}
