/** The HTTP server of `tiedlora serve`: routes, limits, keys, and an end in good order. */
import { createHash, timingSafeEqual } from "node:crypto";
import { once, setMaxListeners } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { ApiError, asApiError } from "./api-error.ts";
import { chat, complete, type Engine, type Receiver } from "./answers.ts";
import { readLoad, readUnload } from "./requests.ts";
import { isOwnName } from "./static.ts";

export interface ApiServerOptions {
  readonly port: number;
  readonly host: string;
  /** The key that requests must bear; undefined: none. */
  readonly apiKey: string | undefined;
  /** The most bytes of a request's body. */
  readonly maxBytes: number;
}

/** Whether an address is reached from this machine alone. */
export const isLoopback = (host: string): boolean => /^(localhost|127(\.\d+){3}|::1)$/i.test(host);

type Handler = (engine: Engine, request: Call, to: Receiver) => Promise<void> | void;

interface Call {
  readonly body: unknown;
  /** The part of the path after the route's own. */
  readonly rest: string;
}

interface Route {
  readonly method: "GET" | "POST";
  readonly answer: Handler;
  /** Whether it changes what is served. */
  readonly changes?: true;
}

const modelObject = (served: Engine["served"]["all"][number], base: string): object => ({
  id: served.name,
  object: "model",
  created: served.since,
  owned_by: "tiedlora",
  root: served.path ?? served.name,
  parent: served.path === null ? null : base,
});

const ROUTES: Readonly<Record<string, Route>> = {
  "/health": { method: "GET", answer: (_engine, _call, to) => to.json({ status: "ok" }) },
  "/v1/models": { method: "GET", answer: listModels },
  "/v1/models/": { method: "GET", answer: oneModel },
  "/v1/completions": { method: "POST", answer: (engine, { body }, to) => complete(engine, body, to) },
  "/v1/chat/completions": { method: "POST", answer: (engine, { body }, to) => chat(engine, body, to) },
  "/v1/load_lora_adapter": { method: "POST", answer: load, changes: true },
  "/v1/unload_lora_adapter": { method: "POST", answer: unload, changes: true },
};

function listModels({ served }: Engine, _call: Call, to: Receiver): void {
  const base = served.all[0]!.name;
  to.json({ object: "list", data: served.all.map((one) => modelObject(one, base)) });
}

function oneModel({ served }: Engine, { rest }: Call, to: Receiver): void {
  to.json(modelObject(served.get(rest), served.all[0]!.name));
}

async function load({ served }: Engine, { body }: Call, to: Receiver): Promise<void> {
  const { name, path, replace } = readLoad(body);
  await served.load(name, path, { replace });
  to.json({ status: "ok", message: `adapter ${name} is loaded` });
}

async function unload({ served }: Engine, { body }: Call, to: Receiver): Promise<void> {
  const { name } = readUnload(body);
  await served.unload(name);
  to.json({ status: "ok", message: `adapter ${name} is unloaded; requests that began with it go on` });
}

/** A server that answers requests, and ends in good order. */
export class ApiServer {
  readonly #engine: Engine;
  readonly #options: ApiServerOptions;
  readonly #server: Server;
  #running = 0;
  #closing = false;
  #idle: (() => void) | null = null;

  constructor(engine: Engine, options: ApiServerOptions) {
    this.#engine = engine;
    this.#options = options;
    this.#server = createServer((request, response) => void this.#handle(request, response));
  }

  /** Listens; returns the port. Rejects if the port is taken. */
  async listen(): Promise<number> {
    const { port, host } = this.#options;
    this.#server.listen(port, host);
    await once(this.#server, "listening");
    return (this.#server.address() as { port: number }).port;
  }

  /** Takes no more requests, and resolves when those that run have been answered. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#server.close();
    if (this.#running > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
    this.#server.closeAllConnections();
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.#running++;
    const gone = new AbortController();
    response.on("close", () => gone.abort());
    setMaxListeners(0, response, gone.signal); // one for each choice of a request
    const to = new Answer(response, gone.signal);
    try {
      await this.#route(request, to);
    } catch (error) {
      if (!gone.signal.aborted) to.fail(asApiError(error));
    } finally {
      to.end();
      if (!gone.signal.aborted) await once(response, "close").catch(() => undefined);
      if (--this.#running === 0) this.#idle?.();
    }
  }

  async #route(request: IncomingMessage, to: Answer): Promise<void> {
    const { host } = this.#options;
    if (isLoopback(host) && !isOwnName(request.headers.host, host))
      throw new ApiError(403, "this server answers to addresses and to the names of its own machine alone");
    if (this.#closing) throw new ApiError(503, "the server is stopping");
    const path = new URL(request.url ?? "/", "http://localhost").pathname;
    const name = Object.hasOwn(ROUTES, path) ? path : path.startsWith("/v1/models/") ? "/v1/models/" : null;
    if (path !== "/health") this.#authenticate(request);
    if (name === null)
      throw new ApiError(404, `there is no ${path}; there are ${Object.keys(ROUTES).join(", ")}`);
    const route = ROUTES[name]!;
    if (request.method !== route.method)
      throw new ApiError(405, `${path} is asked by ${route.method}, not by ${request.method}`);
    if (route.changes) this.#checkMayChange();
    const body = route.method === "POST" ? await readJson(request, this.#options.maxBytes) : null;
    await route.answer(this.#engine, { body, rest: decodeURIComponent(path.slice(name.length)) }, to);
  }

  #authenticate({ headers }: IncomingMessage): void {
    const { apiKey } = this.#options;
    if (apiKey === undefined) return;
    const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
    const given = headers.authorization ?? "";
    if (!timingSafeEqual(digest(given), digest(`Bearer ${apiKey}`)))
      throw new ApiError(401, "the request does not bear this server's API key: Authorization: Bearer KEY", {
        code: "invalid_api_key",
      });
  }

  #checkMayChange(): void {
    const { host, apiKey } = this.#options;
    if (isLoopback(host) || apiKey !== undefined) return;
    throw new ApiError(403, "adapters are loaded and unloaded only if the server has an API key, or is reached from its own machine alone"); // prettier-ignore
  }
}

/** Reads the body. A page of another site can send JSON as another type without asking; so only JSON's own is read. */
async function readJson(request: IncomingMessage, maxBytes: number): Promise<unknown> {
  const type = request.headers["content-type"] ?? "";
  if (!/^application\/json\b/i.test(type))
    throw new ApiError(415, `the content type is ${type === "" ? "missing" : `"${type}"`}; expected application/json`); // prettier-ignore
  const tooLarge = (): ApiError => new ApiError(413, `the body of the request is larger than ${maxBytes} bytes`); // prettier-ignore
  if (Number(request.headers["content-length"] ?? 0) > maxBytes) throw tooLarge();
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    if ((bytes += part.byteLength) > maxBytes) throw tooLarge();
    parts.push(part);
  }
  try {
    return JSON.parse(Buffer.concat(parts).toString("utf8"));
  } catch (error) {
    throw new ApiError(400, `the body of the request is not JSON: ${(error as Error).message}`);
  }
}

/** The answer to one request. */
class Answer implements Receiver {
  readonly signal: AbortSignal;
  readonly #response: ServerResponse;
  #streams = false;

  constructor(response: ServerResponse, signal: AbortSignal) {
    this.#response = response;
    this.signal = signal;
  }

  json(body: object, status = 200): void {
    const text = JSON.stringify(body);
    this.#response.writeHead(status, {
      "content-type": "application/json",
      "content-length": Buffer.byteLength(text),
    });
    this.#response.end(text);
  }

  async event(data: string): Promise<void> {
    if (!this.#streams) {
      this.#streams = true;
      this.#response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
    }
    if (this.#response.write(`data: ${data}\n\n`) || this.signal.aborted) return;
    await once(this.#response, "drain", { signal: this.signal });
  }

  /** Answers with an error; within a stream, as its last event. */
  fail(error: ApiError): void {
    if (this.#streams) return void this.#response.write(`data: ${JSON.stringify(error.body())}\n\n`);
    if (this.#response.headersSent) return void this.#response.destroy();
    this.#response.setHeader("connection", "close"); // a body that was not read is not worth reading
    this.json(error.body(), error.status);
  }

  end(): void {
    if (!this.#response.writableEnded) this.#response.end();
  }
}
