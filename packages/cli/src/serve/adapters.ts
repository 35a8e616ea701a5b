/**
 * The adapters that are served, by name. They come and go while requests run: a request keeps the adapter that it began with, whose
 * memory is freed once no request uses it any more.
 */
import { directoryFiles } from "@tiedlora/core/node";
import type { ContinuousBatch, Decoder } from "@tiedlora/models";
import { adaptersOf, readProvenance } from "tiedlora";
import { suggestion } from "tiedlora/internal";
import { loadAdapter } from "tiedlora/node";
import { ApiError } from "./api-error.ts";

/** A model that requests name: the base model, or an adapter on it. */
export interface Served {
  readonly name: string;
  /** The directory; null for the base model. */
  readonly path: string | null;
  /** The name of the adapter on the model: a new one each time that files are loaded. Null for the base model. */
  readonly adapter: string | null;
  /** The text that followed every prompt in the adapter's training, if there was one. */
  readonly separator: string | undefined;
  /** The time of loading, in seconds since 1970. */
  readonly since: number;
}

interface Entry extends Served {
  requests: number;
  retired: boolean;
}

const seconds = (): number => Math.floor(Date.now() / 1000);

export class ServedModels {
  readonly #model: Decoder;
  readonly #batch: ContinuousBatch;
  readonly #entries = new Map<string, Entry>();
  readonly #base: Entry;
  #loads = 0;
  #last: Promise<unknown> = Promise.resolve();

  /** @param name the name of the base model */
  constructor(model: Decoder, batch: ContinuousBatch, name: string) {
    this.#model = model;
    this.#batch = batch;
    this.#base = { name, path: null, adapter: null, separator: undefined, since: seconds(), requests: 0, retired: false }; // prettier-ignore
    this.#entries.set(name, this.#base);
  }

  /** The base model, and all adapters that requests can name. */
  get all(): readonly Served[] {
    return [...this.#entries.values()];
  }

  /** The model of a name. Throws ApiError 404 if there is none. */
  get(name: string): Served {
    return this.#get(name);
  }

  #get(name: string): Entry {
    const found = this.#entries.get(name);
    if (found !== undefined) return found;
    const hint = suggestion(name, this.#entries.keys(), "the models are");
    throw new ApiError(404, `the model "${name}" does not exist; ${hint}`, { param: "model", code: "model_not_found" }); // prettier-ignore
  }

  /** Runs `work` with the model of a name, which stays in memory until the promise of `work` is settled. */
  async using<T>(name: string, work: (served: Served) => Promise<T>): Promise<T> {
    const entry = this.#get(name);
    entry.requests++;
    try {
      return await work(entry);
    } finally {
      entry.requests--;
      if (entry.retired) await this.#free(entry);
    }
  }

  /** Loads an adapter; from then on, requests can name it. Throws ApiError if the name is taken, or the files do not fit. */
  load(
    name: string,
    path: string,
    { replace = false }: { readonly replace?: boolean } = {},
  ): Promise<Served> {
    return this.#inTurn(async () => {
      const old = this.#entries.get(name);
      if (old === this.#base) throw taken(name, "it is the name of the base model");
      if (old !== undefined && !replace) throw taken(name, 'unload it first, or give "load_inplace": true');
      const adapter = `${name} (${++this.#loads})`;
      const { separator } = await this.#attach(adapter, path);
      const entry = { name, path, adapter, separator, since: seconds(), requests: 0, retired: false };
      this.#entries.set(name, entry);
      if (old !== undefined) await this.#retire(old);
      return entry;
    });
  }

  async #attach(adapter: string, path: string): Promise<{ readonly separator: string | undefined }> {
    try {
      await loadAdapter(this.#model, path, { name: adapter, active: false, trainable: false });
      return { separator: (await readProvenance(await directoryFiles(path)))["separator"] };
    } catch (error) {
      if (adaptersOf(this.#model).has(adapter)) adaptersOf(this.#model).delete(adapter);
      throw new ApiError(400, `${path}: ${(error as Error).message}`, { param: "lora_path" });
    }
  }

  /** Takes an adapter off the list; requests that began with it go on. Throws ApiError 404 if there is none of this name. */
  unload(name: string): Promise<void> {
    return this.#inTurn(async () => {
      const entry = this.#get(name);
      if (entry === this.#base)
        throw new ApiError(400, `"${name}" is the base model, which cannot be unloaded`, { param: "lora_name" }); // prettier-ignore
      this.#entries.delete(name);
      await this.#retire(entry);
    });
  }

  async #retire(entry: Entry): Promise<void> {
    entry.retired = true;
    await this.#free(entry);
  }

  async #free({ adapter, requests }: Entry): Promise<void> {
    if (requests > 0) return;
    await this.#batch.between(() => {
      const set = adaptersOf(this.#model);
      if (!set.has(adapter!)) return;
      const parameters = set.get(adapter!).parameters();
      set.delete(adapter!);
      for (const { storage } of parameters) storage.buffer.free();
    });
  }

  /** One change after the other. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => undefined);
    return result;
  }
}

function taken(name: string, why: string): ApiError {
  return new ApiError(400, `the name "${name}" is taken: ${why}`, { param: "lora_name" });
}
