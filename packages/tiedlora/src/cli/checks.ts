/** What can be known to be wrong before any work is done. */
import { access, constants, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import type { Decoder } from "@tiedlora/models";
import { hostInfos, hostsOf } from "../hosts.ts";
import type { Method } from "../method.ts";
import { planAdapter } from "../plan.ts";
import { writeError } from "../node/writing.ts";
import type { LinearInfo } from "../sites.ts";
import { paint, type Output } from "./output.ts";

/** Beyond so many times the size of the smallest adapted module, a rank is taken for a mistake. */
const ABSURD = 8;

/**
 * A rank above the size of a module adds nothing: its update cannot have more. That is noted; a rank far above is an error.
 */
export function checkRank(model: Decoder, method: Method, output: Output): void {
  const note = rankProblem(hostInfos(hostsOf(model)), method);
  if (note !== null) output.info(`${paint("yellow", "note:")} ${note}`);
}

/** What is to be noted of a method's rank; null: nothing. Throws if it is absurd. */
export function rankProblem(linears: readonly LinearInfo[], method: Method): string | null {
  const { sites } = planAdapter(linears, { ...method, rank: 1 });
  const [smallest] = sites
    .map(({ site }) => site)
    .sort((a, b) => Math.min(a.in, a.out) - Math.min(b.in, b.out));
  const most = Math.min(smallest!.in, smallest!.out);
  if (method.rank <= most) return null;
  const what = `rank ${method.rank} is too large for ${smallest!.path}, which is ${smallest!.out} by ${smallest!.in}`;
  if (method.rank > ABSURD * most) throw new Error(`${what}; give at most --rank ${most}`);
  return `${what}: an update cannot have a rank above ${most}, and more only costs time`;
}

/** Throws if a directory for results is a file, or cannot be written: before the work, not after it. */
export async function checkOut(directory: string): Promise<void> {
  let path = resolve(directory);
  for (;;) {
    try {
      if (!(await stat(path)).isDirectory())
        throw new Error(`--out ${directory}: ${path} is a file; give a directory`);
      await access(path, constants.W_OK);
      return;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      const missing = code === "ENOENT" || code === "ENOTDIR"; // below a file, the file itself is found in the end
      if (!missing || dirname(path) === path) throw writeError(directory, error);
      path = dirname(path);
    }
  }
}
