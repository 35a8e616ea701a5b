/**
 * Errors of the operating system while writing, with the directory added: for a full disk the system names no path, otherwise it
 * names that of a temporary file.
 */
import { resolve, sep } from "node:path";
import { getSystemErrorMap } from "node:util";

/** Runs `work`, which writes in a directory; errors of the operating system are rethrown as `writeError` returns them. */
export async function writing<T>(directory: string, work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    throw writeError(directory, cause);
  }
}

/** Codes of errors that concern a whole disk or directory, not a single file. */
const GENERAL: readonly (string | undefined)[] = ["EACCES", "EDQUOT", "ENOSPC", "EPERM", "EROFS"];

/**
 * An error that names the directory and the reason, with the system's code. Returns `cause` itself if it is not an error of the
 * operating system, or if it already names the path in question.
 */
export function writeError(directory: string, cause: unknown): unknown {
  if (!(cause instanceof Error) || isWriteError(cause)) return cause;
  const { code, errno, path } = cause as NodeJS.ErrnoException;
  if (code === undefined || errno === undefined) return cause;
  const saysWhere = path !== undefined && !GENERAL.includes(code);
  const isElsewhere = path !== undefined && !isAround(resolve(directory), resolve(path));
  if (saysWhere || isElsewhere) return cause;
  const why = getSystemErrorMap().get(errno)?.[1] ?? "the system reports an error";
  const error = new Error(`cannot write in ${directory}: ${why} (${code})`, { cause });
  return Object.assign(error, { name: WRITE_ERROR, code });
}

const WRITE_ERROR = "WriteError";

export function isWriteError(error: unknown): boolean {
  return error instanceof Error && error.name === WRITE_ERROR;
}

/** Whether one path equals or contains the other: creating a directory can fail at one of its parents. */
function isAround(a: string, b: string): boolean {
  return a === b || a.startsWith(b.replace(/[/\\]?$/, sep)) || b.startsWith(a.replace(/[/\\]?$/, sep));
}
