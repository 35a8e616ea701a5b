/**
 * Several files of a directory that are replaced together. The old ones are set aside while the new ones get their names. A
 * marker says so meanwhile, and after a crash in between it says what has to be undone: readers find the old files, the new
 * ones, or none, but never some of each.
 */
import { readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

/** `.KEY.PID-n.swap` is the marker; the key file comes last, and goes first. `.NAME.PID-n.old` is what was set aside. */
const MARKER = /^\.(.+)\.((\d+)-\d+)\.swap$/;
const asideName = (name: string, batch: string): string => `.${name}.${batch}.old`;

interface Plan {
  /** The new files, the key file last. */
  readonly fresh: readonly string[];
  /** Those of them, and of others that go, which were there before. */
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
   * Sets the old files aside.
   * @param batch the process's number, and one of its own: `PID-n`
   * @param fresh names of the files that will be there, the key file last
   * @param remove names of files that will not
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

  /** After the last of the new files got its name. */
  finish(): Promise<void> {
    return finish(this.#directory, this.#batch, this.#plan, this.#marker);
  }

  /** Takes back what was done, as far as that can be done now; `recoverSwaps` does the rest. */
  async undo(): Promise<void> {
    await undo(this.#directory, this.#batch, this.#plan, this.#marker).catch(() => undefined);
  }
}

async function finish(directory: string, batch: string, { old }: Plan, marker: string): Promise<void> {
  for (const name of old) await rm(join(directory, asideName(name, batch)), { force: true });
  await rm(marker, { force: true });
}

/** The key file last: as long as it is not there, the rest is to be undone. */
async function undo(directory: string, batch: string, { fresh, old }: Plan, marker: string): Promise<void> {
  const there = await readdir(directory);
  for (const name of fresh) if (!old.includes(name)) await rm(join(directory, name), { force: true });
  for (const name of [...old].reverse()) {
    const aside = asideName(name, batch);
    if (there.includes(aside)) await rename(join(directory, aside), join(directory, name));
  }
  await rm(marker, { force: true });
}

/** Brings to an end what processes that have died have begun: finished where the key file is there, else undone. */
export async function recoverSwaps(directory: string, isAlive: (pid: number) => boolean): Promise<void> {
  const there = await readdir(directory).catch((): string[] => []);
  for (const file of there) {
    const [, key, batch, pid] = MARKER.exec(file) ?? [];
    if (key === undefined || batch === undefined || isAlive(Number(pid))) continue;
    const marker = join(directory, file);
    const plan = planOf(await readFile(marker, "utf8"));
    await (there.includes(key) ? finish : undo)(directory, batch, plan, marker);
  }
}

/** One that is cut off was not acted on yet. */
function planOf(text: string): Plan {
  try {
    return JSON.parse(text) as Plan;
  } catch {
    return { fresh: [], old: [] };
  }
}
