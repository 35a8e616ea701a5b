/** The address of a queue's server, as --queue gives it. */
import { UsageError } from "../settings.ts";

const ADDRESS_EXAMPLES = "redis://:PASSWORD@HOST:6379 or postgres://USER:PASSWORD@HOST:5432/DATABASE";

export interface QueueAddress {
  readonly kind: "redis" | "postgres";
  /** The address for the client, password included: never print it. */
  readonly url: string;
  /** The address without the password, for messages. */
  readonly shown: string;
}

const KINDS: Readonly<Record<string, QueueAddress["kind"]>> = {
  "redis:": "redis",
  "rediss:": "redis",
  "valkey:": "redis",
  "valkeys:": "redis",
  "postgres:": "postgres",
  "postgresql:": "postgres",
};

/** Reads an address. Throws UsageError with what is expected. */
export function parseAddress(given: string): QueueAddress {
  const url = URL.canParse(given) ? new URL(given) : null;
  const kind = url === null || url.hostname === "" ? undefined : KINDS[url.protocol];
  if (url === null || kind === undefined)
    throw new UsageError(
      `--queue ${withoutPassword(given)}: expected the address of a server, ${ADDRESS_EXAMPLES}`,
    );
  const shown = new URL(url);
  shown.password = "";
  return {
    kind,
    url: given.replace(/^valkey(s?):/, "redis$1:"),
    shown: shown.href.replace(/:\/\/:?@/, "://"),
  };
}

function withoutPassword(given: string): string {
  return given.replace(/:[^:@/]*@/, ":…@");
}
