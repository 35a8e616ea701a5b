/**
 * Models on the Hugging Face hub by name, for pages: kept in the storage of the page's origin, and loaded only as far as they
 * are not there. In Node, the functions of "@tiedlora/models/node" take names. Needs the package @huggingface/hub.
 * @module
 */
import type { Files } from "@tiedlora/core";
import { BrowserRepository } from "./hub/browser-store.ts";
import { HubClient, type DownloadProgress, type HubOptions } from "./hub/client.ts";
import { describeOutage, HubError } from "./hub/errors.ts";
import { listRepository } from "./hub/listing.ts";
import { loadPart } from "./hub/load.ts";
import { type HubName, isCommit, parseHubName } from "./hub/name.ts";
import { type HubPart, missingFiles } from "./hub/wanted.ts";
import { PAGE_WORDS } from "./hub/words.ts";
import type { LoadOptions } from "./load.ts";
import { loadPretrainedFrom, type Pretrained } from "./pretrained.ts";

/** Settings of `hubFiles`; none is needed. */
export interface HubFilesOptions extends HubOptions {
  /** What is needed of the repository. Default: "model". */
  readonly part?: HubPart;
}

/**
 * The files of a repository, "owner/name" or "owner/name@revision". What the page has loaded before is used, also without a
 * network; a download that was cut goes on where it was.
 * @throws HubError if the hub refuses or cannot be reached, or if the storage is full.
 */
export async function hubFiles(name: string, options: HubFilesOptions = {}): Promise<Files> {
  const parsed = nameOf(name);
  const { part = "model", onNote, onProgress } = options;
  const repository = await BrowserRepository.open(parsed);
  const kept = async (): Promise<Files | null> => {
    const commit = await repository.commit();
    const files = commit === null ? null : await (await repository.at(commit)).files();
    return files !== null && (await missingFiles(part, files)).length === 0 ? files : null;
  };
  const there = isCommit(parsed.revision) ? await kept() : null;
  if (there !== null) return there;
  const client = new HubClient(parsed, options, PAGE_WORDS);
  try {
    const listing = await listRepository(client);
    const store = await repository.at(listing.commit);
    await loadPart(part, store, client, listing, onProgress);
    await repository.setCommit(listing.commit);
    return await store.files();
  } catch (error) {
    const files = error instanceof HubError && error.temporary ? await kept() : null;
    if (files === null) throw error;
    onNote?.(`${describeOutage(parsed, error as HubError)}: using what was loaded before`);
    return files;
  }
}

/** Loads a model and its tokenizer by name; see `hubFiles`. */
export async function loadPretrained(name: string, options: LoadOptions & HubOptions): Promise<Pretrained> {
  const { device, quantize, stream, ...rest } = options;
  const how = { ...(quantize !== undefined && { quantize }), ...(stream !== undefined && { stream }) };
  return loadPretrainedFrom(await hubFiles(name, rest), { device, ...how });
}

/** Deletes what the page's storage keeps of a repository, all revisions. */
export async function forgetModel(name: string): Promise<void> {
  await BrowserRepository.remove(nameOf(name));
}

function nameOf(name: string): HubName {
  const parsed = parseHubName(name);
  if (parsed !== null) return parsed;
  throw new HubError(
    `${JSON.stringify(name)} is not a name on the hub; expected owner/name or owner/name@revision`,
    0,
  );
}

export { type DownloadProgress, HubError, type HubOptions, type HubPart };
