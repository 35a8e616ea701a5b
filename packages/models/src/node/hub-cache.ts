/**
 * The cache that Python's huggingface_hub has: blobs/DIGEST holds a content once, snapshots/COMMIT/NAME are links to blobs, and
 * refs/REVISION holds a commit. A content gets its name in blobs only when it is whole and its digest is right.
 */
import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import {
  copyFile,
  type FileHandle,
  link,
  mkdir,
  open,
  readFile,
  rename,
  rm,
  stat,
  symlink,
} from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { directoryFiles, writeFileAtomic } from "@tiedlora/core/node";
import type { HubOptions } from "../hub/client.ts";
import { HubError } from "../hub/errors.ts";
import type { HubFile } from "../hub/listing.ts";
import { type HubName, isCommit, nameText } from "../hub/name.ts";
import type { PartialContent, Store } from "../hub/load.ts";
import { type FileLockOptions, withFileLock } from "./hub-lock.ts";

type LockOptions = Omit<FileLockOptions, "onWait"> & Pick<HubOptions, "onNote">;
type Guard = <T>(work: () => Promise<T>) => Promise<T>;

/** The part of the cache that belongs to one repository. */
export class RepositoryCache {
  readonly #root: string;
  readonly #name: HubName;
  readonly #folder: string;
  readonly #locks: string;

  constructor(root: string, name: HubName) {
    const own = `models--${name.id.replace("/", "--")}`;
    this.#root = root;
    this.#name = name;
    this.#folder = join(root, own);
    this.#locks = join(root, ".locks", own);
  }

  /** The commit that the name's revision had when it was last loaded; null if it never was. */
  async commit(): Promise<string | null> {
    const { revision } = this.#name;
    if (isCommit(revision)) return revision;
    const text = await readFile(join(this.#folder, "refs", revision), "utf8").catch(() => "");
    return isCommit(text.trim()) ? text.trim() : null;
  }

  /** Notes the commit of the name's revision. */
  async setCommit(commit: string): Promise<void> {
    if (isCommit(this.#name.revision) || (await this.commit()) === commit) return;
    await this.#writing(() => writeFileAtomic(join(this.#folder, "refs", this.#name.revision), commit));
  }

  /** The directory of a commit's files. */
  snapshot(commit: string): string {
    return join(this.#folder, "snapshots", commit);
  }

  /** The files of one commit. `locks` says how other processes are waited for. */
  at(commit: string, locks: LockOptions): Store {
    return {
      has: (file) => this.#has(file, commit),
      locked: (file, work) => {
        const onWait = (owner: string): void =>
          locks.onNote?.(`${owner} is loading ${file.path} of ${nameText(this.#name)}: waiting for it`);
        const path = join(this.#locks, `${file.etag}.tiedlora.lock`);
        return this.#writing(() => withFileLock(path, { ...locks, onWait }, work));
      },
      partial: (file) => this.#partial(file),
      complete: (file) => this.#complete(file, commit),
      files: () => directoryFiles(this.snapshot(commit)),
    };
  }

  #blob({ etag }: HubFile): string {
    return join(this.#folder, "blobs", etag);
  }

  /** What there is of a file, under a name that no reader looks at. */
  #partialPath(file: HubFile): string {
    return `${this.#blob(file)}.tiedlora.incomplete`;
  }

  /** Whether a file is whole in the snapshot, or can be put there from the blobs. */
  async #has(file: HubFile, commit: string): Promise<boolean> {
    const path = join(this.snapshot(commit), file.path);
    if ((await sizeOf(path)) === file.size) return true;
    if ((await sizeOf(this.#blob(file))) !== file.size) return false;
    await this.#writing(() => place(this.#blob(file), path));
    return true;
  }

  async #partial(file: HubFile): Promise<PartialFile> {
    const path = this.#partialPath(file);
    return this.#writing(async () => {
      await mkdir(dirname(path), { recursive: true });
      return PartialFile.open(path, file, (work) => this.#writing(work));
    });
  }

  async #complete(file: HubFile, commit: string): Promise<void> {
    await this.#writing(async () => {
      await rename(this.#partialPath(file), this.#blob(file)).catch(async (error: unknown) => {
        if ((await sizeOf(this.#blob(file))) !== file.size) throw error; // otherwise another process was faster
      });
    });
    await this.#has(file, commit);
  }

  /** Runs `work`, which writes into the cache; failures of the disk say what to do. */
  async #writing<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (cause) {
      const { code, syscall } = cause as NodeJS.ErrnoException;
      if (syscall === undefined) throw cause; // it is not the file system's
      const remedy = code === "ENOSPC" || code === "EDQUOT" ? "free some space there, or set" : "set";
      throw new HubError(
        `${nameText(this.#name)}: the cache ${this.#root} cannot be written (${code}): ${remedy} HF_HOME or HF_HUB_CACHE to a folder ` +
          "that has space and can be written",
        0,
        { cause },
      );
    }
  }
}

/** The bytes of a file that have been loaded so far, with their digest. */
class PartialFile implements PartialContent {
  readonly #file: HubFile;
  readonly #handle: FileHandle;
  readonly #writing: Guard;
  #hash: Hash;
  #size = 0;

  private constructor(file: HubFile, handle: FileHandle, writing: Guard) {
    this.#file = file;
    this.#handle = handle;
    this.#writing = writing;
    this.#hash = newHash(file);
  }

  static async open(path: string, file: HubFile, writing: Guard): Promise<PartialFile> {
    const handle = await open(path, "a").then(async (made) => {
      await made.close();
      return open(path, "r+");
    });
    const partial = new PartialFile(file, handle, writing);
    for await (const bytes of createReadStream(path)) {
      partial.#hash.update(bytes as Uint8Array);
      partial.#size += (bytes as Uint8Array).byteLength;
    }
    return partial;
  }

  get size(): number {
    return this.#size;
  }

  async append(bytes: Uint8Array): Promise<void> {
    await this.#writing(async () => {
      for (let done = 0; done < bytes.byteLength;) {
        // At its position, not at the end: should two processes write, both write the same.
        const { bytesWritten } = await this.#handle.write(
          bytes,
          done,
          bytes.byteLength - done,
          this.#size + done,
        );
        done += bytesWritten;
      }
    });
    this.#hash.update(bytes);
    this.#size += bytes.byteLength;
  }

  async restart(): Promise<void> {
    await this.#writing(() => this.#handle.truncate(0));
    this.#hash = newHash(this.#file);
    this.#size = 0;
  }

  /** The digest of all bytes, of the kind that the hub gave. The file is on the disk afterwards, and nothing can be added. */
  async finish(): Promise<string> {
    await this.#writing(() => this.#handle.sync());
    return this.#hash.digest("hex");
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/** What the hub's digest covers: the content, in git with a header. */
function newHash({ digest, size }: HubFile): Hash {
  return digest === "sha256" ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
}

async function sizeOf(path: string): Promise<number | null> {
  return stat(path).then(({ size }) => size, () => null); // prettier-ignore
}

let counter = 0;

/** Puts a link to a blob at a path of the snapshot, or a copy where the file system has no links. */
async function place(blob: string, path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.${process.pid}-${counter++}.tmp`;
  try {
    await symlink(relative(dirname(path), blob), temporary)
      .catch(() => link(blob, temporary))
      .catch(() => copyFile(blob, temporary));
    await rename(temporary, path);
  } finally {
    await rm(temporary, { force: true });
  }
}
