/**
 * A file system that fails as the system's own would: with its codes and numbers, after writing what still fits, and naming
 * paths where it does. Below one directory alone, and only for the calls of this process.
 */
import fs, { type PathLike } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { constants } from "node:os";
import { resolve, sep } from "node:path";

/**
 * "ENOSPC": `space` bytes are left. The others: nothing can be changed; `unnoticed` by who asks beforehand, or only `after` so
 * many changes. What lies on the disk then is what a process leaves that is killed at that moment: it cannot clean up.
 */
/** Is told of each change before it is made. */
type Told = (syscall: string, path: string) => void;
export type Fault =
  | { readonly code: "ENOSPC"; readonly space: number }
  | {
      readonly code: "EROFS" | "EACCES";
      readonly unnoticed?: true;
      readonly after?: number;
      readonly told?: Told;
    };

/** Runs `work` on such a disk. */
export async function onDisk<T>(fault: Fault, directory: string, work: () => Promise<T>): Promise<T> {
  const { open, access, mkdir, rename, rm, rmdir, writeFile } = fs.promises;
  const { openSync, writeSync, mkdirSync } = fs;
  const inside = (path: unknown): boolean => `${resolve(String(path))}${sep}`.startsWith(`${resolve(directory)}${sep}`); // prettier-ignore
  const full = new Space(fault.code === "ENOSPC" ? fault.space : Infinity);
  let changes = 0;
  const refuse = (syscall: string, path: PathLike): void => {
    if (fault.code === "ENOSPC" || !inside(path)) return;
    fault.told?.(syscall, String(path));
    if (changes++ >= (fault.after ?? 0)) throw systemError(fault.code, syscall, path);
  };
  const writes = (flags: unknown): boolean => typeof flags === "string" && /[wa+]/.test(flags);
  const descriptors = new Set<number>();
  const patched = {
    open: async (path: PathLike, flags = "r", ...rest: number[]) => {
      if (writes(flags)) refuse("open", path);
      const handle = await open(path, flags, ...rest);
      if (!writes(flags) || !inside(path)) return handle;
      const write = handle.write.bind(handle) as (...args: unknown[]) => Promise<unknown>;
      const limited = async (
        bytes: Uint8Array,
        from = 0,
        length = bytes.byteLength - from,
      ): Promise<unknown> => {
        refuse("write", path);
        return write(bytes, from, full.take(length));
      };
      return Object.assign(handle, { write: limited });
    },
    access: async (path: PathLike, mode = 0) => {
      if (mode & fs.constants.W_OK && !("unnoticed" in fault) && !("after" in fault)) refuse("access", path);
      return access(path, mode);
    },
    mkdir: async (path: PathLike, options: object) => {
      if (!fs.existsSync(path)) refuse("mkdir", path);
      return mkdir(path, options);
    },
    rename: async (from: PathLike, to: PathLike) => {
      refuse("rename", from);
      return rename(from, to);
    },
    rm: async (path: PathLike, options: object) => {
      if (fs.existsSync(path)) refuse("unlink", path);
      return rm(path, options);
    },
    rmdir: async (path: PathLike) => {
      if (fs.existsSync(path)) refuse("rmdir", path);
      return rmdir(path);
    },
    writeFile: async (path: PathLike, text: string, options: object) => {
      refuse("open", path);
      const bytes = Buffer.from(text);
      if (inside(path) && full.take(bytes.byteLength) < bytes.byteLength) {
        await writeFile(path, "", options); // what still fitted is not of interest
        throw systemError("ENOSPC", "write");
      }
      return writeFile(path, bytes, options);
    },
  };
  const patchedSync = {
    openSync: (path: PathLike, flags = "r", ...rest: number[]) => {
      if (writes(flags)) refuse("open", path);
      const file = openSync(path, flags, ...rest);
      if (writes(flags) && inside(path)) descriptors.add(file);
      return file;
    },
    writeSync: (file: number, bytes: Uint8Array, from = 0) => {
      const length = bytes.byteLength - from;
      if (descriptors.has(file)) refuse("write", directory);
      return writeSync(file, bytes, from, descriptors.has(file) ? full.take(length) : length);
    },
    mkdirSync: (path: PathLike, options: object) => {
      if (!fs.existsSync(path)) refuse("mkdir", path);
      return mkdirSync(path, options);
    },
  };
  const install = (promises: object, sync: object): void => {
    Object.assign(fs.promises, promises);
    Object.assign(fs, sync);
    syncBuiltinESMExports();
  };
  install(patched, patchedSync);
  try {
    return await work();
  } finally {
    install({ open, access, mkdir, rename, rm, rmdir, writeFile }, { openSync, writeSync, mkdirSync });
  }
}

class Space {
  #left: number;

  constructor(bytes: number) {
    this.#left = bytes;
  }

  /** How many of `wanted` bytes can be written: fewer at the end, none any more is an error. */
  take(wanted: number): number {
    if (this.#left === 0 && wanted > 0) throw systemError("ENOSPC", "write");
    const taken = Math.min(this.#left, wanted);
    this.#left -= taken;
    return taken;
  }
}

const TEXT = {
  ENOSPC: "no space left on device",
  EROFS: "read-only file system",
  EACCES: "permission denied",
} as const;

/** As Node makes them. */
function systemError(code: keyof typeof TEXT, syscall: string, path?: PathLike): NodeJS.ErrnoException {
  const where = path === undefined ? {} : { path: String(path) };
  const message = `${code}: ${TEXT[code]}, ${syscall}${path === undefined ? "" : ` '${String(path)}'`}`;
  return Object.assign(new Error(message), { code, errno: -constants.errno[code], syscall, ...where });
}
