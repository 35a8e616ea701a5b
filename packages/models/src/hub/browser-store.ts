/**
 * Models from the hub in the storage of a page's origin (OPFS), laid out as the cache on disks is. A content is kept in pieces,
 * each of which is written whole or not at all; together they are a blob of which only what is read is in memory.
 */
import { type Files, memoryFiles } from "@tiedlora/core";
import { HubError } from "./errors.ts";
import type { HubFile } from "./listing.ts";
import type { PartialContent, Store } from "./load.ts";
import { type HubName, isCommit, nameText } from "./name.ts";
import { Sha256 } from "./sha256.ts";

const ROOT = "huggingface-hub";
const PIECE_BYTES = 16 * 2 ** 20;
/** Written last: only a content that has it is whole. */
const COMPLETE = "complete";

/** What a user can do about an exception of the storage, by the exception's name. */
const PROBLEMS: ReadonlyMap<string, string> = new Map([
  [
    "QuotaExceededError",
    "the storage that the browser gives to this page is full: delete models that are not needed any more (forgetModel), or free " +
      "space on the disk; what has been loaded is kept",
  ],
  [
    "NotFoundError",
    "what was kept of the model was deleted while it was in use, by forgetModel in another page or by the browser: load it again",
  ],
]);

export class BrowserRepository {
  readonly #name: HubName;
  readonly #folder: FileSystemDirectoryHandle;

  private constructor(name: HubName, folder: FileSystemDirectoryHandle) {
    this.#name = name;
    this.#folder = folder;
  }

  static async open(name: HubName): Promise<BrowserRepository> {
    const storage = globalThis.navigator?.storage as StorageManager | undefined;
    if (storage?.getDirectory === undefined)
      throw new HubError(
        `${nameText(name)}: there is no storage for files here; expected a page from https or localhost, in a browser with OPFS ` +
          "(in Node, load the model by @tiedlora/models/node)",
        0,
      );
    const root = await (await storage.getDirectory()).getDirectoryHandle(ROOT, { create: true });
    return new BrowserRepository(name, await root.getDirectoryHandle(folderOf(name), { create: true }));
  }

  /** Deletes all that is kept of a repository. */
  static async remove(name: HubName): Promise<void> {
    const root = await navigator.storage.getDirectory();
    const hub = await orNull(root.getDirectoryHandle(ROOT));
    if (hub === null) return;
    await withNotes(name, "exclusive", () => orNull(hub.removeEntry(folderOf(name), { recursive: true })));
  }

  /** The commit that the name's revision had when it was last loaded; null if it never was. */
  async commit(): Promise<string | null> {
    if (isCommit(this.#name.revision)) return this.#name.revision;
    const ref = encodeURIComponent(this.#name.revision);
    const text = await withNotes(this.#name, "shared", () => this.#read("refs", ref));
    return text !== null && isCommit(text) ? text : null;
  }

  /** Notes the commit of the name's revision. */
  async setCommit(commit: string): Promise<void> {
    const ref = encodeURIComponent(this.#name.revision);
    if (!isCommit(this.#name.revision))
      await withNotes(this.#name, "exclusive", () => this.#write("refs", ref, commit));
  }

  /** The files of one commit. */
  async at(commit: string): Promise<Store> {
    const files = await withNotes(this.#name, "shared", () => this.#snapshot(commit));
    return {
      has: async (file) =>
        (await this.#guarded(() => this.#blob(file))) !== null && this.#note(commit, files, file),
      locked: (file, work) => navigator.locks.request(`${ROOT}/${file.etag}`, work),
      partial: async (file) =>
        this.#guarded(async () =>
          StoredPieces.open(await this.#pieces(file), file, (work) => this.#guarded(work)),
        ),
      complete: async (file) => {
        await this.#guarded(async () =>
          writeWhole(await this.#pieces(file), COMPLETE, utf8(String(file.size))),
        );
        await this.#note(commit, files, file);
      },
      files: () => this.#files(files),
    };
  }

  /** Makes a whole content a file of a commit; files that other pages have noted meanwhile are kept. */
  async #note(commit: string, files: Map<string, HubFile>, file: HubFile): Promise<true> {
    if (files.get(file.path)?.etag === file.etag) return true;
    files.set(file.path, file);
    await withNotes(this.#name, "exclusive", async () => {
      const all = await this.#snapshot(commit);
      all.set(file.path, file);
      await this.#write("snapshots", commit, JSON.stringify([...all.values()]));
    });
    return true;
  }

  /** The files that are noted for a commit, by path. */
  async #snapshot(commit: string): Promise<Map<string, HubFile>> {
    const noted = JSON.parse((await this.#read("snapshots", commit)) ?? "[]") as HubFile[];
    return new Map(noted.map((file) => [file.path, file]));
  }

  async #files(files: ReadonlyMap<string, HubFile>): Promise<Files> {
    const blobs = new Map<string, Blob>();
    for (const file of files.values()) {
      const blob = await this.#blob(file);
      if (blob !== null) blobs.set(file.path, blob);
    }
    return memoryFiles(blobs, nameText(this.#name));
  }

  /** A content, if it is whole. */
  async #blob(file: HubFile): Promise<Blob | null> {
    const folder = await this.#pieces(file);
    if ((await orNull(folder.getFileHandle(COMPLETE))) === null) return null;
    const blob = new Blob(await piecesIn(folder));
    return blob.size === file.size ? blob : null;
  }

  async #pieces({ etag }: HubFile): Promise<FileSystemDirectoryHandle> {
    return (await this.#sub("blobs")).getDirectoryHandle(etag, { create: true });
  }

  #sub(name: string): Promise<FileSystemDirectoryHandle> {
    return this.#folder.getDirectoryHandle(name, { create: true });
  }

  async #read(folder: string, name: string): Promise<string | null> {
    return this.#guarded(async () => {
      const handle = await orNull((await this.#sub(folder)).getFileHandle(name));
      return handle === null ? null : (await handle.getFile()).text();
    });
  }

  async #write(folder: string, name: string, text: string): Promise<void> {
    await this.#guarded(async () => writeWhole(await this.#sub(folder), name, utf8(text)));
  }

  /** Runs `work`, which uses the storage; a full storage and a folder that is gone are said clearly. */
  async #guarded<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (cause) {
      const problem = cause instanceof DOMException ? PROBLEMS.get(cause.name) : undefined;
      if (problem === undefined) throw cause;
      throw new HubError(`${nameText(this.#name)}: ${problem}`, 0, { cause });
    }
  }
}

function folderOf({ id }: HubName): string {
  return `models--${id.replace("/", "--")}`;
}

/**
 * Runs `work`, which reads ("shared") or writes ("exclusive") what is noted of a repository. A file that is written anew is not
 * there for a moment, and a page that opened it then would fail.
 */
function withNotes<T>(name: HubName, mode: LockMode, work: () => Promise<T>): Promise<T> {
  return navigator.locks.request(`${ROOT}/${folderOf(name)}`, { mode }, work) as Promise<T>;
}

/** The value, or null where the storage has no such entry. */
async function orNull<T>(found: Promise<T>): Promise<T | null> {
  return found.catch((error: unknown) => {
    if (error instanceof DOMException && error.name === "NotFoundError") return null;
    throw error;
  });
}

async function piecesIn(folder: FileSystemDirectoryHandle): Promise<File[]> {
  const pieces: File[] = [];
  for (;;) {
    const handle = await orNull(folder.getFileHandle(String(pieces.length)));
    if (handle === null) return pieces;
    pieces.push(await handle.getFile());
  }
}

/** Writes a file of the storage: a reader sees all of it or none. */
async function writeWhole(folder: FileSystemDirectoryHandle, name: string, bytes: Uint8Array): Promise<void> {
  const stream = await (await folder.getFileHandle(name, { create: true })).createWritable();
  try {
    await stream.write(bytes as Uint8Array<ArrayBuffer>);
    await stream.close();
  } catch (error) {
    await stream.abort().catch(() => undefined);
    throw error;
  }
}

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

type Guard = <T>(work: () => Promise<T>) => Promise<T>;

/** A content that is loaded piece by piece; what does not fill a piece yet is in memory. */
class StoredPieces implements PartialContent {
  readonly #folder: FileSystemDirectoryHandle;
  readonly #file: HubFile;
  readonly #guard: Guard;
  readonly #piece = new Uint8Array(PIECE_BYTES);
  #held = 0;
  #pieces = 0;
  #stored = 0;
  #sha = new Sha256();

  private constructor(folder: FileSystemDirectoryHandle, file: HubFile, guard: Guard) {
    this.#folder = folder;
    this.#file = file;
    this.#guard = guard;
  }

  static async open(folder: FileSystemDirectoryHandle, file: HubFile, guard: Guard): Promise<StoredPieces> {
    const opened = new StoredPieces(folder, file, guard);
    for (const piece of await piecesIn(folder)) {
      const last = opened.#stored + piece.size === file.size;
      if (piece.size !== PIECE_BYTES && !last) break; // created, but never written
      opened.#sha.update(new Uint8Array(await piece.arrayBuffer()));
      opened.#stored += piece.size;
      opened.#pieces++;
    }
    return opened;
  }

  get size(): number {
    return this.#stored + this.#held;
  }

  async append(bytes: Uint8Array): Promise<void> {
    this.#sha.update(bytes);
    for (let at = 0; at < bytes.byteLength;) {
      const part = bytes.subarray(at, at + PIECE_BYTES - this.#held);
      this.#piece.set(part, this.#held);
      this.#held += part.byteLength;
      at += part.byteLength;
      if (this.#held === PIECE_BYTES) await this.#store();
    }
  }

  async #store(): Promise<void> {
    await this.#guard(() => writeWhole(this.#folder, String(this.#pieces), this.#piece.slice(0, this.#held)));
    this.#stored += this.#held;
    this.#pieces++;
    this.#held = 0;
  }

  async restart(): Promise<void> {
    for (let i = 0; (await orNull(this.#folder.removeEntry(String(i)))) !== null; i++);
    [this.#held, this.#pieces, this.#stored] = [0, 0, 0];
    this.#sha = new Sha256();
  }

  async finish(): Promise<string> {
    if (this.#held > 0 || this.#pieces === 0) await this.#store();
    if (this.#file.digest === "sha256") return this.#sha.hex();
    const content = await new Blob([
      `blob ${this.#file.size}\0`,
      ...(await piecesIn(this.#folder)),
    ]).arrayBuffer();
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-1", content));
    return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  async close(): Promise<void> {
    // all handles are closed after each piece
  }
}
