/**
 * A lasting cache in a folder, one file an entry. It belongs to Node (also to Bun and Deno), whose modules are loaded at run time, so that
 * bundles for browsers load.
 *
 * The name of a file is a hash of everything that its value follows from: the key, the code of the packages that made it, and the engine's
 * version. So another version never sees it. A file begins with a hash of the rest: one that is damaged counts as missing, and is
 * written again. Files are written under another name and then renamed, so processes may share a folder.
 * @module
 */
import type { LastingCache, LastingKey } from "./lasting-cache.ts";

interface NodeModules {
  "node:fs": {
    readFileSync(path: string): Uint8Array<ArrayBuffer>;
    writeFileSync(path: string, content: Uint8Array): void;
    renameSync(from: string, to: string): void;
    rmSync(path: string, options: { force: true }): void;
    mkdirSync(path: string, options: { recursive: true }): void;
    readdirSync(path: string, options?: { recursive: true }): string[];
    statSync(path: string): { readonly size: number; readonly mtimeMs: number };
  };
  "node:url": { fileURLToPath(url: string): string };
  "node:v8": { serialize(value: unknown): Uint8Array; deserialize(bytes: Uint8Array): unknown };
  "node:crypto": { createHash(name: "sha256"): Hash; randomUUID(): string };
}

interface Hash {
  update(data: string | Uint8Array): Hash;
  digest(): Uint8Array;
  digest(encoding: "hex"): string;
}

interface NodeProcess {
  readonly versions?: { readonly v8?: string };
  getBuiltinModule?<K extends keyof NodeModules>(name: K): NodeModules[K] | undefined;
}

const { process } = globalThis as { process?: NodeProcess };

function nodeModule<K extends keyof NodeModules>(name: K): NodeModules[K] {
  const found = process?.getBuiltinModule?.(name);
  if (found !== undefined) return found;
  throw new Error(
    `the option "cache" needs ${name}, which is not here: leave the option out in browsers, which keep no WebAssembly that a page generates, and keep compiled shaders by themselves`,
  );
}

/** The module that makes what is kept: its `import.meta`. */
export interface Origin {
  readonly url?: string;
  /** The address of a module that is imported by this name. */
  resolve?(specifier: string): string;
}

/** The most bytes that a folder's entries have; beyond that, the oldest are removed down to half of it. */
const MOST_BYTES = 512 * 2 ** 20;
/** The names of entries, and of those that a process did not finish. Other files of the folder are not touched. */
const OWN_NAME = /^(?:\w+-[0-9a-f]{40}|[0-9a-f]{8}-[0-9a-f-]{27}\.part)$/;
const HASH_BYTES = 32;

/** How often a value was found, and how often one was kept. */
export interface CacheCount {
  found: number;
  kept: number;
}

/** A lasting cache in a folder. Neither a damaged file nor a folder that cannot be written to is an error: what is missing is made again. */
export class FolderCache implements LastingCache {
  readonly folder: string;
  /** What happened so far, by kind of value. */
  readonly counts: Record<string, CacheCount> = {};
  readonly #version: string;
  readonly #mostBytes: number;
  readonly #fs = nodeModule("node:fs");
  readonly #v8 = nodeModule("node:v8");
  readonly #crypto = nodeModule("node:crypto");
  #isFirstWrite = true;
  #isWritable = true;

  /** `version`: text that differs wherever equal keys stand for different values. */
  constructor(folder: string, version: string, mostBytes: number = MOST_BYTES) {
    this.folder = folder;
    this.#version = version;
    this.#mostBytes = mostBytes;
  }

  find(kind: string, key: LastingKey): unknown {
    const name = this.#nameOf(kind, key);
    try {
      const file = this.#fs.readFileSync(`${this.folder}/${name}`);
      const content = file.subarray(HASH_BYTES);
      const hash = this.#hashOf(name, content);
      if (file.byteLength < HASH_BYTES || hash.some((byte, i) => byte !== file[i])) return undefined;
      const value = this.#v8.deserialize(content);
      this.#countOf(kind).found++;
      return value;
    } catch {
      return undefined; // there is none
    }
  }

  keep(kind: string, key: LastingKey, value: unknown): void {
    if (!this.#isWritable) return;
    const name = this.#nameOf(kind, key);
    const partial = `${this.folder}/${this.#crypto.randomUUID()}.part`;
    try {
      if (this.#isFirstWrite) this.#makeRoom();
      this.#isFirstWrite = false;
      const content = this.#v8.serialize(value);
      const file = new Uint8Array(HASH_BYTES + content.byteLength);
      file.set(this.#hashOf(name, content));
      file.set(content, HASH_BYTES);
      this.#fs.writeFileSync(partial, file);
      this.#fs.renameSync(partial, `${this.folder}/${name}`);
      this.#countOf(kind).kept++;
    } catch {
      this.#isWritable = false; // a full disk, no permission: what is there can still be read
      try {
        this.#fs.rmSync(partial, { force: true });
      } catch {} // it may not even be a folder
    }
  }

  #countOf(kind: string): CacheCount {
    return (this.counts[kind] ??= { found: 0, kept: 0 });
  }

  #nameOf(kind: string, key: LastingKey): string {
    const hash = this.#crypto.createHash("sha256").update(JSON.stringify([this.#version, kind]));
    for (const part of key) {
      const bytes =
        typeof part === "string"
          ? part
          : new Uint8Array(part.buffer as ArrayBuffer, part.byteOffset, part.byteLength);
      hash.update(`${typeof part} ${bytes.length}:`).update(bytes);
    }
    return `${kind}-${hash.digest("hex").slice(0, 40)}`;
  }

  /** The hash of an entry, which includes its name: a file that was copied to another name is not taken for that entry. */
  #hashOf(name: string, content: Uint8Array): Uint8Array {
    return this.#crypto.createHash("sha256").update(name).update(content).digest();
  }

  #makeRoom(): void {
    this.#fs.mkdirSync(this.folder, { recursive: true });
    const names = this.#fs.readdirSync(this.folder).filter((name) => OWN_NAME.test(name));
    const files = names.flatMap((name) => {
      try {
        const path = `${this.folder}/${name}`;
        const { size, mtimeMs } = this.#fs.statSync(path);
        return [{ path, size, mtimeMs }];
      } catch {
        return []; // another process has just removed it
      }
    });
    let bytes = files.reduce((sum, { size }) => sum + size, 0);
    if (bytes <= this.#mostBytes) return;
    for (const { path, size } of files.sort((a, b) => a.mtimeMs - b.mtimeMs)) {
      if (bytes <= this.#mostBytes / 2) return;
      this.#fs.rmSync(path, { force: true });
      bytes -= size;
    }
  }
}

/**
 * A cache in `folder` for values that `packages` make, of which `origin` is one; `settings` is what the values depend on besides keys
 * and code. Throws where there is no Node, and where the code cannot be found, such as in a bundle of CommonJS.
 */
export function folderCache(
  folder: string,
  settings: string,
  origin: Origin,
  packages: readonly string[],
): FolderCache {
  if (typeof folder !== "string" || folder === "") {
    throw new TypeError(
      `cache: ${JSON.stringify(folder)}: expected the path of a folder, which is made if there is none`,
    );
  }
  const code = codeOf([import.meta, origin], packages);
  return new FolderCache(folder, JSON.stringify([code, process?.versions?.v8, settings]));
}

/** By their list: the hash of the code of packages. A process asks once per backend. */
const known = new Map<string, string>();

/** A hash of the code of the packages, or of the files that they are bundled into. */
function codeOf(origins: readonly Origin[], packages: readonly string[]): string {
  const files = origins.flatMap(({ url }) => (url?.startsWith("file:") ? [url] : []));
  if (files.length < origins.length) {
    throw new Error(
      'the option "cache" needs the files of this code, to know which version made an entry: bundle it as an ES module, leave it unbundled, or leave the option out',
    );
  }
  const folders = packages.flatMap((name) => resolved(origins.at(-1)!, name));
  const key = [...files, ...folders].join();
  let hash = known.get(key);
  if (hash === undefined) known.set(key, (hash = hashOfCode(files, folders)));
  return hash;
}

/** The folder of a package's code; none if it is bundled. */
function resolved(origin: Origin, name: string): string[] {
  try {
    const url = origin.resolve?.(name);
    return url?.startsWith("file:") ? [url.replace(/[^/]*$/, "")] : [];
  } catch {
    return [];
  }
}

function hashOfCode(files: readonly string[], folders: readonly string[]): string {
  const fs = nodeModule("node:fs");
  const hash = nodeModule("node:crypto").createHash("sha256");
  const pathOf = (url: string): string => nodeModule("node:url").fileURLToPath(url.replace(/[?#].*/, ""));
  const within = (folder: string): string[] => {
    const names = fs.readdirSync(folder, { recursive: true }).sort();
    return names.filter((name) => /(?<!\.d)\.[jt]s$/.test(name)).map((name) => `${folder}${name}`);
  };
  const own = files.map(pathOf);
  const others = folders.flatMap((url) => within(pathOf(url)));
  for (const path of new Set([...own, ...others])) hash.update(fs.readFileSync(path));
  return hash.digest("hex");
}
