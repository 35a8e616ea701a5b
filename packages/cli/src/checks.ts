/** Checks for mistakes that can be found before any work is done. */
import { access, constants, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import type { Decoder } from "@tiedlora/models";
import { adaptableModules, adaptersOf, moduleInfos } from "tiedlora";
import type { Method } from "tiedlora";
import { endsWithName, moduleNames, parameterInfos } from "tiedlora/internal";
import { suggestion } from "tiedlora/internal";
import { planAdapter } from "tiedlora";
import { writeError } from "tiedlora/internal/node";
import type { LinearInfo } from "tiedlora";
import { paint, type Output } from "./output.ts";
import { asUsage, UsageError } from "./settings.ts";

/** A rank above this many times the size of the smallest adapted module is taken for a mistake. */
const ABSURD = 8;

/**
 * Prints a note if the rank exceeds the size of a module: no update of the module can have a rank above its size, so a higher
 * one adds nothing. Throws UsageError if the rank is far above it.
 */
export function checkRank(model: Decoder, method: Method, output: Output): void {
  const infos = moduleInfos(adaptableModules(model));
  const note = rankProblem(infos, method);
  asUsage(() => planAdapter(infos, method, parameterInfos(adaptersOf(model).ownParameters())));
  if (note !== null) output.info(`${paint("yellow", "note:")} ${note}`);
}

/** A note on a method's rank, or null. Throws UsageError if the rank is absurd, or if a name in the target fits no module. */
export function rankProblem(linears: readonly LinearInfo[], method: Method): string | null {
  if (Object.keys(method.factors).length === 0) return null; // full fine-tuning has no rank and no target
  checkTargetNames(linears, method);
  const own = {
    ...method,
    factors: {},
    rankPattern: {},
    alphaPattern: {},
    modulesToSave: [],
    bias: "none",
    trainedTokens: [],
  } as const;
  const { sites } = asUsage(() => planAdapter(linears, own)); // which modules, whatever the rank
  const [smallest] = sites
    .map(({ site }) => site)
    .sort((a, b) => Math.min(a.in, a.out) - Math.min(b.in, b.out));
  const most = Math.min(smallest!.in, smallest!.out);
  if (method.rank <= most) return null;
  const what = `rank ${method.rank} is too large for ${smallest!.path}, which is ${smallest!.out} by ${smallest!.in}`;
  if (method.rank > ABSURD * most) throw new UsageError(`${what}; give at most --rank ${most}`);
  return `${what}: an update cannot have a rank above ${most}, and more only costs time`;
}

/** Throws UsageError if a name of a target fits no module: beside names that fit, a misspelled one would be ignored silently. */
function checkTargetNames(linears: readonly LinearInfo[], { target: given }: Method): void {
  const target = typeof given === "object" && "modules" in given ? given.modules : given;
  if (!Array.isArray(target)) return;
  const names = moduleNames(linears);
  for (const name of target as readonly string[]) {
    if (linears.some(({ path }) => endsWithName(path, name))) continue;
    const hint = suggestion(name, names, "the model has");
    throw new UsageError(`--target: no module is called "${name}"; ${hint}`);
  }
}

/** Throws if a directory for results is a file, or cannot be written, so that the error comes before the work. */
export async function checkOut(directory: string): Promise<void> {
  let path = resolve(directory);
  for (;;) {
    try {
      if (!(await stat(path)).isDirectory())
        throw new UsageError(`--out ${directory}: ${path} is a file; give a directory`);
      await access(path, constants.W_OK);
      return;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      const missing = code === "ENOENT" || code === "ENOTDIR"; // for a path below a file, the loop arrives at the file itself
      if (!missing || dirname(path) === path) throw writeError(directory, error);
      path = dirname(path);
    }
  }
}
