/**
 * What the system says when it does not let write: for a full disk it names no path, for others the one of a temporary file.
 */
import { resolve, sep } from "node:path";
import { getSystemErrorMap } from "node:util";

/** Does `work`, which writes in a directory; an error of the system says where that was. */
export async function writing<T>(directory: string, work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    throw writeError(directory, cause);
  }
}

/** What holds for a whole disk or directory, whichever file it was. */
const GENERAL: readonly (string | undefined)[] = ["EACCES", "EDQUOT", "ENOSPC", "EPERM", "EROFS"];

/** The same error, if it is not the system's, or says better itself what is wrong. It has the system's code. */
export function writeError(directory: string, cause: unknown): unknown {
  if (!(cause instanceof Error) || isWriteError(cause)) return cause;
  const { code, errno, path } = cause as NodeJS.ErrnoException;
  if (code === undefined || errno === undefined) return cause;
  const saysWhere = path !== undefined && !GENERAL.includes(code);
  const isElsewhere = path !== undefined && !isAround(resolve(directory), resolve(path));
  if (saysWhere || isElsewhere) return cause;
  const why = getSystemErrorMap().get(errno)?.[1] ?? "it fails";
  const error = new Error(`cannot write in ${directory}: ${why} (${code})`, { cause });
  return Object.assign(error, { name: WRITE_ERROR, code });
}

const WRITE_ERROR = "WriteError";

export function isWriteError(error: unknown): boolean {
  return error instanceof Error && error.name === WRITE_ERROR;
}

/** Whether one is the other, or in the other: making a directory fails where its parents are made. */
function isAround(a: string, b: string): boolean {
  return a === b || a.startsWith(b.replace(/[/\\]?$/, sep)) || b.startsWith(a.replace(/[/\\]?$/, sep));
}
