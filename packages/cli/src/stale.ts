/** How long an agent, or a worker of a queue, may be silent before it is taken for dead. */
import { UsageError } from "./settings.ts";

const STALE = "TIEDLORA_STALE_SECONDS";

/** What the user has set; undefined if nothing. */
export function staleSecondsOf(env: NodeJS.ProcessEnv): number | undefined {
  const text = env[STALE];
  if (text === undefined || text === "") return undefined;
  const value = Number(text);
  if (Number.isFinite(value) && value >= 1) return value;
  throw new UsageError(`${STALE} is ${JSON.stringify(text)}; expected a number of seconds of at least 1`);
}
