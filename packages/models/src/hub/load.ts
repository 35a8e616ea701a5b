/** Loads what is needed of a repository into a store: the small files first, so that the weights being there means that all is. */
import type { Files } from "@tiedlora/core";
import type { HubClient, HubOptions } from "./client.ts";
import { HubError } from "./errors.ts";
import type { HubFile, Listing } from "./listing.ts";
import { nameText } from "./name.ts";
import { type Sink, transfer } from "./transfer.ts";
import { type HubPart, wantedFiles, wantedShards } from "./wanted.ts";

/** A file that is not whole yet. */
export interface PartialContent extends Sink {
  /** Stores what has been appended; returns the digest of all of it, of the kind that the hub gave. */
  finish(): Promise<string>;
  close(): Promise<void>;
}

/** Where the files of one commit are kept. */
export interface Store {
  /** Whether a file is there, whole. */
  has(file: HubFile): Promise<boolean>;
  /** Runs `work` while no other process or tab loads the file. */
  locked(file: HubFile, work: () => Promise<void>): Promise<void>;
  partial(file: HubFile): Promise<PartialContent>;
  /** Makes a whole file, whose digest is right, a file of the commit. */
  complete(file: HubFile, content: PartialContent): Promise<void>;
  /** The files of the commit that are whole. */
  files(): Promise<Files>;
}

/** Loads the files of a part that the store lacks. Returns all files of the part. */
export async function loadPart(
  part: HubPart,
  store: Store,
  client: HubClient,
  listing: Listing,
  onProgress: HubOptions["onProgress"],
): Promise<readonly HubFile[]> {
  const wanted = wantedFiles(part, listing, client.name);
  const one = async (file: HubFile): Promise<void> => {
    if (await store.has(file)) return;
    const [index, files] = [wanted.indexOf(file) + 1, wanted.length];
    const report = (loaded: number): void =>
      onProgress?.({ file: file.path, loaded, size: file.size, index, files });
    await store.locked(file, async () => {
      if (!(await store.has(file))) await loadFile(store, client, file, listing, report);
    });
  };
  for (const file of wanted) await one(file);
  const shards = part === "model" ? await wantedShards(await store.files(), listing, client.name) : [];
  wanted.push(...shards);
  for (const file of shards) await one(file);
  return wanted;
}

/** Loads one file. What was left of an earlier download is thrown away only if the digest shows that it was wrong. */
async function loadFile(
  store: Store,
  client: HubClient,
  file: HubFile,
  { commit }: Listing,
  report: (loaded: number) => void,
): Promise<void> {
  for (;;) {
    const content = await store.partial(file);
    const before = content.size;
    try {
      report(before);
      await transfer(client, client.fileUrl(commit, file.path), file, content, report);
      const digest = await content.finish();
      if (digest === file.etag) {
        await store.complete(file, content);
        return;
      }
      await content.restart();
      if (before > 0) continue;
      throw changed(client, file, digest);
    } finally {
      await content.close();
    }
  }
}

function changed({ name, endpoint, words }: HubClient, { path, etag }: HubFile, digest: string): HubError {
  return new HubError(
    `${nameText(name)}: the content of ${path} has the digest ${digest}; expected ${etag}, by the listing of ${endpoint}: it was ` +
      `changed on its way, and nothing of it is kept; try again, or use another mirror (${words.endpoint})`,
    0,
  );
}
