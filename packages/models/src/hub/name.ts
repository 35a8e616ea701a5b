/** Names of models on a hub: "owner/name", or "owner/name@revision", where the revision is a branch, a tag or a commit. */

/** A repository on the hub, and the revision that is meant. */
export interface HubName {
  /** "owner/name" */
  readonly id: string;
  readonly revision: string;
  /** Whether the text named the revision; if not, it is "main". */
  readonly pinned: boolean;
}

const PART = String.raw`[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?`;
const NAME = new RegExp(`^(${PART}/${PART})(?:@([\\w./-]+))?$`);
const COMMIT = /^[0-9a-f]{40}$/;

/** Parses a name; null if the text is not one, such as a path. Names become paths of the cache, which they cannot leave. */
export function parseHubName(text: string): HubName | null {
  const [, id, revision] = NAME.exec(text) ?? [];
  if (id === undefined || /--|\.\./.test(id)) return null;
  if (revision !== undefined && revision.split("/").some((part) => part === "" || /^\.+$/.test(part)))
    return null;
  return { id, revision: revision ?? "main", pinned: revision !== undefined };
}

/** Whether a revision is a whole commit hash, whose files never change. */
export function isCommit(revision: string): boolean {
  return COMMIT.test(revision);
}

/** "owner/name", with the revision if it is not the default one. */
export function nameText({ id, revision }: HubName): string {
  return revision === "main" ? id : `${id}@${revision}`;
}
