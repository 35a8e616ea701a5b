/** One file from the hub, in order and whole: a connection that is cut is taken up again where it was. */
import type { HubClient } from "./client.ts";
import { HubError, reasonOf } from "./errors.ts";
import type { HubFile } from "./listing.ts";
import { nameText } from "./name.ts";

/** Where the bytes of a file go. */
export interface Sink {
  /** The bytes that are there, from the beginning on; an earlier download may have left some. */
  readonly size: number;
  append(bytes: Uint8Array): Promise<void>;
  /** Throws away what is there. */
  restart(): Promise<void>;
}

/** Loads what the sink lacks of a file. Plain HTTP, which every mirror serves; the digest is for the caller to check. */
export async function transfer(
  client: HubClient,
  url: string,
  file: HubFile,
  sink: Sink,
  onBytes: (loaded: number) => void,
): Promise<void> {
  if (sink.size > file.size) await sink.restart();
  for (let failures = 0; sink.size < file.size;) {
    const before = sink.size;
    const cut = await attempt(client, url, file, sink, onBytes);
    if (cut === null) continue;
    failures = sink.size > before ? 1 : failures + 1;
    if (failures > client.retries) throw givenUp(client, file, sink.size, cut);
    await client.pause(failures - 1);
  }
}

/** Loads until the connection ends. Returns why it ended too early; null if it did not. */
async function attempt(
  client: HubClient,
  url: string,
  file: HubFile,
  sink: Sink,
  onBytes: (loaded: number) => void,
): Promise<string | null> {
  const idle = new IdleTimer(client.timeoutMs);
  try {
    const headers = new Headers({ "Accept-Encoding": "identity" });
    if (sink.size > 0) headers.set("Range", `bytes=${sink.size}-`);
    const response = await client.request(url, headers, () => idle.start());
    if (!(await agrees(response, client, file, sink))) return "the answer is for another range";
    const reader = response.body!.getReader();
    for (;;) {
      idle.touch();
      const piece = await read(reader);
      if (piece instanceof Error) {
        client.signal?.throwIfAborted();
        return idle.expired ? `nothing came for ${client.timeoutMs / 1000} s` : reasonOf(piece);
      }
      if (piece === null) return sink.size < file.size ? "the connection ended" : null;
      if (sink.size + piece.byteLength > file.size) throw await wrongLength(client, file, sink, "more bytes");
      await sink.append(piece);
      onBytes(sink.size);
    }
  } finally {
    idle.stop();
  }
}

async function read(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<Uint8Array | null | Error> {
  try {
    const { done, value } = await reader.read();
    return done ? null : value;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

/** Whether the answer goes on where the sink ends; otherwise the sink begins anew. Throws HubError if it has another length. */
async function agrees(response: Response, client: HubClient, file: HubFile, sink: Sink): Promise<boolean> {
  if (response.status === 206) {
    const [, begin, total] =
      /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get("Content-Range") ?? "") ?? [];
    if (total !== undefined && total !== "*" && Number(total) !== file.size)
      throw await wrongLength(client, file, sink, `${total} bytes`, response);
    if (begin !== undefined && Number(begin) === sink.size) return true;
  }
  if (sink.size > 0) await sink.restart(); // the server does not know ranges, or has another file
  if (response.status !== 200) {
    await response.body?.cancel();
    return false;
  }
  const length = response.headers.get("Content-Length");
  if (length !== null && !response.headers.has("Content-Encoding") && Number(length) !== file.size)
    throw await wrongLength(client, file, sink, `${length} bytes`, response);
  return true;
}

async function wrongLength(
  { name, endpoint, words }: HubClient,
  { path, size }: HubFile,
  sink: Sink,
  found: string,
  response?: Response,
): Promise<HubError> {
  await response?.body?.cancel();
  await sink.restart();
  return new HubError(
    `${nameText(name)}: ${path} comes with ${found}; expected ${size} bytes, by the listing of ${endpoint}: try again later, or ` +
      `use another mirror (${words.endpoint})`,
    0,
  );
}

function givenUp({ name, words }: HubClient, { path, size }: HubFile, loaded: number, why: string): HubError {
  return new HubError(
    `${nameText(name)}: the download of ${path} was cut again and again (${why}), the last time at ${loaded} of ${size} bytes; ` +
      `these are kept: ${words.again}`,
    0,
  );
}

/** Ends a connection on which nothing comes. */
class IdleTimer {
  readonly #ms: number;
  #controller = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  expired = false;

  constructor(ms: number) {
    this.#ms = ms;
  }

  /** The signal of a new attempt. */
  start(): AbortSignal {
    this.#controller = new AbortController();
    this.touch();
    return this.#controller.signal;
  }

  touch(): void {
    this.stop();
    this.#timer = setTimeout(() => {
      this.expired = true;
      this.#controller.abort(new Error("no byte came"));
    }, this.#ms);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}
