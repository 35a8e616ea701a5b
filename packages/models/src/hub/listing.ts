/** What a repository holds: the commit of a revision, and its files with their sizes and digests, from the hub's own library. */
import type * as Hub from "@huggingface/hub";
import { describeValue, isPlainFileName } from "@tiedlora/core";
import type { HubClient } from "./client.ts";
import { HubError, reasonOf, unreachable } from "./errors.ts";
import { isCommit, nameText } from "./name.ts";

/** A file as the hub describes it. */
export interface HubFile {
  readonly path: string;
  readonly size: number;
  /** The name of its content in the cache: the SHA-256 of a large file, the hash that git has for a small one. */
  readonly etag: string;
  /** What `etag` is the digest of. */
  readonly digest: "sha256" | "git";
}

/** The files of one commit, those in folders left out. */
export interface Listing {
  readonly commit: string;
  readonly files: ReadonlyMap<string, HubFile>;
}

/** The library is loaded on the first use: whoever only loads directories neither needs nor bundles it. */
function library(): Promise<typeof Hub> {
  return import("@huggingface/hub").catch((cause: unknown) => {
    throw new HubError(
      `loading a model by name needs the package @huggingface/hub (${reasonOf(cause)}): npm install @huggingface/hub`,
      0,
      { cause },
    );
  });
}

/** Asks the hub for the commit of the name's revision, and for its files. */
export async function listRepository(client: HubClient): Promise<Listing> {
  const { modelInfo, listFiles } = await library();
  const { name, endpoint: hubUrl, fetch } = client;
  try {
    const { sha } = await modelInfo({
      name: name.id,
      revision: name.revision,
      hubUrl,
      fetch,
      additionalFields: ["sha"],
    });
    if (typeof sha !== "string" || !isCommit(sha))
      throw strange(client, `${describeValue(sha)} as the commit`);
    const files = new Map<string, HubFile>();
    for await (const { type, path, size, oid, lfs } of listFiles({
      repo: name.id,
      revision: sha,
      hubUrl,
      fetch,
    })) {
      if (type !== "file" || !isPlainFileName(path)) continue;
      const etag = lfs?.oid ?? oid;
      if (etag === undefined || !/^[0-9a-f]{40,64}$/.test(etag))
        throw strange(client, `${path} with the hash ${etag}`);
      files.set(path, { path, size: lfs?.size ?? size, etag, digest: lfs === undefined ? "git" : "sha256" });
    }
    return { commit: sha, files };
  } catch (error) {
    client.signal?.throwIfAborted();
    if (error instanceof HubError) throw error;
    if (error instanceof SyntaxError) throw strange(client, "something else than JSON", error);
    throw unreachable(client, error);
  }
}

function strange({ name, endpoint, words }: HubClient, found: string, cause?: unknown): HubError {
  return new HubError(
    `${nameText(name)}: ${endpoint} answers with ${found}; expected the protocol of the Hugging Face hub there (${words.endpoint})`,
    0,
    { cause },
  );
}
