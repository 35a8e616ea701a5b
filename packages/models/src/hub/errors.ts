/** Why the hub gave no model: each error says what was asked for, what the hub answered, and what to do. */
import { type HubName, nameText } from "./name.ts";
import type { Words } from "./words.ts";

/** Thrown if a model cannot be had from the hub. */
export class HubError extends Error {
  /** The HTTP status of the hub's answer; null if there was none. */
  readonly status: number | null;

  constructor(message: string, status: number | null = null, options?: ErrorOptions) {
    super(message, options);
    this.name = "HubError";
    this.status = status;
  }

  /** Whether the hub may answer at another time, so that a copy in the cache may be used meanwhile. */
  get temporary(): boolean {
    return this.status === null || isTemporary(this.status);
  }
}

/** Statuses after which a request is repeated. */
export function isTemporary(status: number): boolean {
  return status === 408 || status === 429 || status >= 500;
}

/** What a request was for, in messages. */
export interface Asked {
  readonly name: HubName;
  readonly endpoint: string;
  /** Whether a token was sent. */
  readonly withToken: boolean;
  /** What messages call the settings. */
  readonly words: Words;
}

/** The error for an answer that is not a success. */
export async function refusal(response: Response, asked: Asked): Promise<HubError> {
  const { status, headers } = response;
  const said = headers.get("X-Error-Message") ?? (await errorOf(response));
  const message = `${nameText(asked.name)}: ${explain(status, headers.get("X-Error-Code"), asked)}`;
  return new HubError(said === null ? message : `${message} (the hub says: ${said})`, status);
}

async function errorOf(response: Response): Promise<string | null> {
  const text = await response.text().catch(() => "");
  try {
    const { error } = JSON.parse(text) as { error?: unknown };
    return typeof error === "string" ? error : null;
  } catch {
    return null;
  }
}

function explain(status: number, code: string | null, asked: Asked): string {
  const { name, endpoint, withToken, words } = asked;
  const page = `${endpoint}/${name.id}`;
  if (code === "GatedRepo" || status === 403) {
    const then = withToken
      ? "the account of the token in use has no access to it yet"
      : `then ${words.token("a token of the account that has access")}`;
    return `access to this model has to be granted (status ${status}): ask for it at ${page}; ${then}`;
  }
  if (code === "RevisionNotFound")
    return `there is no revision "${name.revision}"; expected a branch, a tag or a commit, as listed at ${page}/commits/main`;
  if (code === "EntryNotFound")
    return `the file is not in this revision (status ${status}): see ${page}/tree/main`;
  if (status === 401 && withToken)
    return `the hub does not accept the token (status 401): make a new one at ${endpoint}/settings/tokens and ${words.token("it")}`;
  if (status === 401 || status === 404)
    return (
      `there is no such model on ${endpoint} (status ${status})${words.orDirectory}; check the spelling` +
      (withToken ? "" : `, or, for a private model, ${words.token()}`)
    );
  if (status === 429)
    return `too many requests to ${endpoint} (status 429): wait some minutes${withToken ? "" : `, or ${words.token()}, which raises the limit`}`;
  if (status >= 500)
    return `${endpoint} is out of order (status ${status}): try again later, or ${words.mirror}`;
  return `${endpoint} answers with status ${status}; expected the protocol of the Hugging Face hub there (${words.endpoint})`;
}

/** The error for a request that was not answered. */
export function unreachable(
  { name, endpoint, words }: Pick<Asked, "name" | "endpoint" | "words">,
  cause: unknown,
): HubError {
  return new HubError(
    `${nameText(name)}: ${endpoint} cannot be reached (${reasonOf(cause)})${words.unreachable}`,
    null,
    { cause },
  );
}

/** The reason in a failure of fetch, which says only "fetch failed" itself. */
export function reasonOf(cause: unknown): string {
  if (!(cause instanceof Error)) return String(cause);
  const inner = cause.cause as { code?: string; message?: string } | undefined;
  return inner?.code ?? (inner?.message || cause.message);
}

/** "owner/name: the hub cannot be asked (status 503)", where that is no failure. */
export function describeOutage(name: HubName, { status, cause }: HubError): string {
  return `${nameText(name)}: the hub cannot be asked (${status === null ? reasonOf(cause) : `status ${status}`})`;
}
