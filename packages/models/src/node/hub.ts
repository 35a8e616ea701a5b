/** Models by name: "owner/name" becomes a directory of the cache, loaded from the hub as far as it is not there yet. */
import { stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { directoryFiles } from "@tiedlora/core/node";
import { HubClient, type HubOptions } from "../hub/client.ts";
import { describeOutage, HubError } from "../hub/errors.ts";
import { listRepository } from "../hub/listing.ts";
import { loadPart } from "../hub/load.ts";
import { type HubName, isCommit, nameText, parseHubName } from "../hub/name.ts";
import { type HubPart, missingFiles } from "../hub/wanted.ts";
import { NODE_WORDS } from "../hub/words.ts";
import { RepositoryCache } from "./hub-cache.ts";
import { hubSettings } from "./hub-settings.ts";

/** Settings of a download; those that are left out come from the variables that Python's huggingface_hub reads. */
export interface DownloadOptions extends HubOptions {
  /** The folder of the cache. Default: HF_HUB_CACHE, or the folder hub in HF_HOME. */
  readonly cache?: string;
  /** Whether only the cache is looked at. Default: HF_HUB_OFFLINE. */
  readonly offline?: boolean;
  /** What is needed of the repository. Default: "model". */
  readonly part?: HubPart;
  /** Time after which the lock of a process that does nothing any more is taken. Default: 30,000 ms. */
  readonly staleMs?: number;
}

/** A repository in the cache. */
export interface Downloaded {
  /** The directory of its files. */
  readonly directory: string;
  /** The commit that they are from. */
  readonly commit: string;
}

/**
 * Loads a model or an adapter from the hub into the cache that it shares with Python, unless it is there already: config.json,
 * the tokenizer's files and the safetensors weights. The name is "owner/name" or "owner/name@revision".
 * @throws HubError if the hub refuses or cannot be reached, or if the cache cannot be written.
 */
export async function downloadModel(name: string, options: DownloadOptions = {}): Promise<Downloaded> {
  const parsed = parseHubName(name);
  if (parsed === null)
    throw new HubError(
      `${JSON.stringify(name)} is not a name on the hub; expected owner/name or owner/name@revision`,
      0,
    );
  const { endpoint, token, cache: root, offline } = hubSettings();
  const own = definedOf(options);
  const settings = {
    ...definedOf({ endpoint, token }),
    cache: root,
    offline,
    part: "model" as const,
    ...own,
  };
  const cache = new RepositoryCache(settings.cache, parsed);
  const there = (): Promise<Downloaded | null> => cached(cache, settings.part);
  if (settings.offline) return (await there()) ?? (await refuseOffline(cache, parsed, settings));
  if (isCommit(parsed.revision)) {
    const found = await there();
    if (found !== null) return found;
  }
  const client = new HubClient(parsed, settings, NODE_WORDS);
  const listing = await listRepository(client).catch(async (error: unknown) => {
    const found = error instanceof HubError && error.temporary ? await there() : null;
    if (found === null) throw error;
    const copy = `using the copy in the cache, commit ${found.commit.slice(0, 8)}`;
    settings.onNote?.(`${describeOutage(parsed, error as HubError)}: ${copy}`);
    return found;
  });
  if ("directory" in listing) return listing;
  const { part, staleMs = 30_000, onNote, onProgress } = settings;
  const store = cache.at(listing.commit, {
    staleMs,
    signal: client.signal,
    ...(onNote !== undefined && { onNote }),
  });
  await loadPart(part, store, client, listing, onProgress);
  await cache.setCommit(listing.commit);
  return { directory: cache.snapshot(listing.commit), commit: listing.commit };
}

function definedOf<T extends object>(options: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as ReturnType<
    typeof definedOf<T>
  >;
}

/** The repository as it is in the cache; null if a part is missing there. */
async function cached(cache: RepositoryCache, part: HubPart): Promise<Downloaded | null> {
  const commit = await cache.commit();
  if (commit === null) return null;
  const directory = cache.snapshot(commit);
  const files = await directoryFiles(directory).catch(() => null);
  if (files === null || (await missingFiles(part, files)).length > 0) return null;
  return { directory, commit };
}

async function refuseOffline(
  cache: RepositoryCache,
  name: HubName,
  settings: { readonly cache: string; readonly part: HubPart },
): Promise<never> {
  const commit = await cache.commit();
  const files = commit === null ? null : await directoryFiles(cache.snapshot(commit)).catch(() => null);
  const lacks = files === null ? `it` : (await missingFiles(settings.part, files)).join(", ");
  throw new HubError(
    `${nameText(name)}: HF_HUB_OFFLINE is set, and the cache ${settings.cache} does not have ${lacks}; unset it to load the model once, or ` +
      "set HF_HOME or HF_HUB_CACHE to the cache that has it",
    0,
  );
}

/**
 * The directory of a model: the given one, or, if there is none and the text is the name of a model on the hub, the one in the
 * cache, where it is loaded to if necessary. A path into a folder that exists is never taken for a name, unless it has a revision.
 */
export async function modelDirectory(model: string, options: DownloadOptions = {}): Promise<string> {
  return (await isOnHub(model)) ? (await downloadModel(model, options)).directory : model;
}

/** Whether a text means a model on the hub, and not a directory here. */
export async function isOnHub(model: string): Promise<boolean> {
  const name = parseHubName(model);
  if (name === null || (await exists(model))) return false;
  return name.pinned || !(await exists(dirname(resolve(model))));
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(() => true, () => false); // prettier-ignore
}
