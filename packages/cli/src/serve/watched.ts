/**
 * A folder of adapters that is watched while they are served: each folder in it that has an adapter is a model of its name, as long as it
 * is there. Folders are looked at every so often, which works on any file system, and loaded once their files no longer change.
 */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { CONFIG_FILE } from "tiedlora/internal";
import type { ServedModels } from "./adapters.ts";

interface Found {
  /** Sizes and times of the adapter's files: equal at two looks in a row if nobody writes them. */
  readonly stamp: string;
  /** Whether these files were loaded, or were tried. */
  readonly done: boolean;
  /** Whether a model of this name was loaded from here. */
  readonly served: boolean;
}

/** What is done with the folder of adapters. */
interface Watching {
  readonly everyMs: number;
  /** Called with a sentence on each adapter that comes, goes or cannot be loaded. */
  readonly onNote: (note: string) => void;
}

export class WatchedFolder {
  readonly #folder: string;
  readonly #served: Pick<ServedModels, "load" | "unload">;
  readonly #options: Watching;
  readonly #found = new Map<string, Found>();
  #timer: NodeJS.Timeout | null = null;
  #looking: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(folder: string, served: Pick<ServedModels, "load" | "unload">, options: Watching) {
    this.#folder = folder;
    this.#served = served;
    this.#options = options;
  }

  /** Loads what is there, and looks again from time to time until it is stopped. Rejects if there is no such folder. */
  async start(): Promise<void> {
    await readdir(this.#folder);
    await this.look(true);
    this.#next();
  }

  /** Ends watching; what is served stays. */
  async stop(): Promise<void> {
    this.#stopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    await this.#looking;
  }

  #next(): void {
    if (this.#stopped) return;
    this.#timer = setTimeout(() => {
      this.#looking = this.look().finally(() => this.#next());
    }, this.#options.everyMs);
    this.#timer.unref();
  }

  /** Loads and unloads what has changed. `now`: also what nobody has looked at before. */
  async look(now = false): Promise<void> {
    const stamps = await stampsIn(this.#folder);
    for (const [name, stamp] of stamps) {
      const before = this.#found.get(name);
      const isSettled = now || before?.stamp === stamp;
      this.#found.set(name, {
        served: before?.served ?? false,
        done: isSettled && before?.done === true,
        stamp,
      });
      if (isSettled && before?.done !== true) await this.#load(name, stamp);
    }
    for (const [name, { served }] of this.#found) {
      if (stamps.has(name)) continue;
      this.#found.delete(name);
      if (!served) continue;
      await this.#served.unload(name).catch(() => undefined); // unloaded by a request already
      this.#options.onNote(`${name} is gone, and no longer served`);
    }
  }

  async #load(name: string, stamp: string): Promise<void> {
    const replace = this.#found.get(name)!.served;
    const served = await this.#served.load(name, join(this.#folder, name), { replace }).then(
      () => true,
      (error: unknown) => {
        this.#options.onNote(`${name} is not served${replace ? " anew" : ""}: ${(error as Error).message}`);
        return replace;
      },
    );
    this.#found.set(name, { stamp, done: true, served });
    if (served && !replace) this.#options.onNote(`${name} is served`);
  }
}

/** The folders that have an adapter, with the sizes and times of their files. */
async function stampsIn(folder: string): Promise<Map<string, string>> {
  const stamps = new Map<string, string>();
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  for (const name of entries.map((entry) => entry.name).sort()) {
    const files = (await readdir(join(folder, name)).catch(() => [])).filter((file) => /\.(json|safetensors)$/.test(file)); // prettier-ignore
    if (name.startsWith(".") || !files.includes(CONFIG_FILE)) continue;
    const parts = files.sort().map(async (file) => {
      const { size, mtimeMs } = await stat(join(folder, name, file));
      return `${file} ${size} ${mtimeMs}`;
    });
    await Promise.all(parts).then((all) => stamps.set(name, all.join("\n")), () => undefined); // prettier-ignore
  }
  return stamps;
}
