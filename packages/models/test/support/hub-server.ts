/** A hub on this machine for tests: the parts of the Hugging Face hub's protocol that loading a model uses, and its faults. */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface Repository {
  /** The files of the only commit, unless `revisions` has more. */
  readonly files: Readonly<Record<string, string | Uint8Array>>;
  /** Branches and tags. Default: main, at `commitOf(files)`. */
  readonly revisions?: Readonly<Record<string, string>>;
  /** Whether a token is needed that has been given access. */
  readonly gated?: boolean;
  readonly isPrivate?: boolean;
}

/** What goes wrong with the next requests whose path matches; `times` of them. */
export interface Fault {
  readonly path: RegExp;
  times: number;
  /** An answer instead of the content. */
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** Bytes after which the connection is cut. */
  readonly cut?: number;
  /** Milliseconds between the last byte and the cut, for clients that throw away what they have not read by then; 20 by default. */
  readonly cutDelay?: number;
  /** Bytes after which nothing more comes. */
  readonly stall?: number;
  /** Other content than what is listed. */
  readonly change?: (content: Buffer) => Buffer;
  /** Ranges are ignored. */
  readonly whole?: boolean;
}

export interface Request {
  /** Storage is another host, to which large files are redirected. */
  readonly host: "hub" | "storage";
  readonly path: string;
  readonly headers: IncomingMessage["headers"];
  /** Bytes of content that were sent. */
  sent: number;
}

/** The token that has access to everything. */
export const TOKEN = "hf_good";
const PAGE = 3;

const isLarge = (path: string): boolean => /\.(safetensors|bin|gguf)$/.test(path);
const bytesOf = (content: string | Uint8Array): Buffer => Buffer.from(content as Uint8Array);
const sha256 = (content: string | Uint8Array): string => createHash("sha256").update(content).digest("hex");
const gitHash = (content: string | Uint8Array): string =>
  createHash("sha1")
    .update(`blob ${bytesOf(content).byteLength}\0`)
    .update(content)
    .digest("hex");

/** The name that a content has in the cache. */
export function etagOf(path: string, content: string | Uint8Array): string {
  return isLarge(path) ? sha256(content) : gitHash(content);
}

/** A commit hash that depends on the files. */
export function commitOf(files: Repository["files"]): string {
  const hash = createHash("sha1");
  for (const [path, content] of Object.entries(files)) hash.update(path).update(content);
  return hash.digest("hex");
}

export class HubServer {
  readonly repositories: Record<string, Repository>;
  readonly requests: Request[] = [];
  faults: Fault[] = [];
  #hub: Server;
  #storage: Server;

  private constructor(repositories: Record<string, Repository>) {
    this.repositories = repositories;
    this.#hub = createServer((request, response) => this.#answer("hub", request, response));
    this.#storage = createServer((request, response) => this.#answer("storage", request, response));
  }

  static async start(repositories: Record<string, Repository>): Promise<HubServer> {
    const made = new HubServer(repositories);
    for (const server of [made.#hub, made.#storage])
      await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
    return made;
  }

  get endpoint(): string {
    return addressOf(this.#hub);
  }

  /** The paths of all requests for content, and the bytes that were sent for them. */
  get loaded(): string[] {
    return this.requests
      .filter(({ sent }) => sent > 0)
      .map(({ path, sent }) => `${path.split("/").at(-1)} ${sent}`);
  }

  [Symbol.asyncDispose](): Promise<void> {
    for (const server of [this.#hub, this.#storage]) {
      server.close();
      server.closeAllConnections();
    }
    return Promise.resolve();
  }

  #answer(host: Request["host"], message: IncomingMessage, response: ServerResponse): void {
    const url = new URL(message.url!, "http://localhost");
    const request: Request = { host, path: url.pathname, headers: message.headers, sent: 0 };
    response.setHeader("Access-Control-Allow-Origin", "*");
    response.setHeader("Access-Control-Allow-Headers", "*");
    response.setHeader("Access-Control-Expose-Headers", "*");
    if (message.method === "OPTIONS") return void response.end();
    this.requests.push(request);
    const fault = this.faults.find(({ path, times }) => times > 0 && path.test(`${host}:${url.pathname}`));
    if (fault !== undefined) fault.times--;
    if (fault?.status !== undefined) return refuse(response, fault.status, undefined, fault.headers);
    const [, api, id, rest] = /^(\/api\/models)?\/([^/]+\/[^/]+)\/(.*)$/.exec(url.pathname) ?? [];
    const repository = this.repositories[id ?? ""];
    const token = message.headers.authorization;
    if (token !== undefined && host === "storage") return refuse(response, 400); // as such storages do: it must not get there
    if (token !== undefined && !token.startsWith("Bearer hf_")) return refuse(response, 401);
    if (repository === undefined || (repository.isPrivate && host === "hub" && token !== `Bearer ${TOKEN}`))
      return refuse(response, token === undefined ? 401 : 404, "RepoNotFound");
    const revisions = repository.revisions ?? { main: commitOf(repository.files) };
    if (api !== undefined) this.#api(response, url, id!, rest!, repository, revisions);
    else if (repository.gated && token !== `Bearer ${TOKEN}` && host === "hub")
      refuse(response, token === undefined ? 401 : 403, "GatedRepo");
    else this.#file(response, request, rest!, repository, revisions, fault);
  }

  #api(
    response: ServerResponse,
    url: URL,
    id: string,
    rest: string,
    { files }: Repository,
    revisions: Readonly<Record<string, string>>,
  ): void {
    const [kind, given] = rest.split("/").map(decodeURIComponent) as [string, string];
    const commit = revisions[given] ?? Object.values(revisions).find((one) => one === given);
    if (commit === undefined) return refuse(response, 404, "RevisionNotFound");
    if (kind === "revision")
      return json(response, { _id: "1", id, sha: commit, private: false, gated: false, likes: 0 });
    const entries = Object.entries(files).map(([path, content]) => ({
      type: path.includes("/") ? "directory" : "file",
      path: path.split("/")[0]!,
      oid: gitHash(content),
      size: bytesOf(content).byteLength,
      ...(isLarge(path) && {
        lfs: { oid: sha256(content), size: bytesOf(content).byteLength, pointerSize: 130 },
        xetHash: sha256(`xet ${path}`),
      }),
    }));
    const from = Number(url.searchParams.get("cursor") ?? 0);
    if (from + PAGE < entries.length)
      response.setHeader("Link", `<${this.endpoint}${url.pathname}?cursor=${from + PAGE}>; rel="next"`);
    json(response, entries.slice(from, from + PAGE));
  }

  #file(
    response: ServerResponse,
    request: Request,
    rest: string,
    { files }: Repository,
    revisions: Readonly<Record<string, string>>,
    fault: Fault | undefined,
  ): void {
    const [, revision, path] = rest.split("/").map(decodeURIComponent) as [string, string, string];
    const commit = revisions[revision] ?? Object.values(revisions).find((one) => one === revision);
    if (commit === undefined) return refuse(response, 404, "RevisionNotFound");
    const listed = files[path];
    if (listed === undefined) return refuse(response, 404, "EntryNotFound");
    const etag = `"${etagOf(path, listed)}"`;
    response.setHeader("X-Repo-Commit", commit);
    if (isLarge(path) && request.host === "hub") {
      response
        .setHeader("X-Linked-Etag", etag)
        .setHeader("X-Linked-Size", String(bytesOf(listed).byteLength));
      response.setHeader("X-Xet-Hash", sha256(`xet ${path}`));
      response.setHeader("Link", `<${this.endpoint}/xet-read-token>; rel="xet-auth"`);
      response.writeHead(302, { Location: `${addressOf(this.#storage)}${request.path}` }).end();
      return;
    }
    if (request.host === "hub" && !request.path.includes("/cached/")) {
      const cached = request.path.replace("/resolve/", "/cached/");
      response.writeHead(307, { Location: cached }).end();
      return;
    }
    send(response, request, bytesOf(listed), etag, fault);
  }
}

/** Sends a content or the range that is asked for, as far as the fault lets it. */
function send(
  response: ServerResponse,
  request: Request,
  listed: Buffer,
  etag: string,
  fault: Fault | undefined,
): void {
  const content = fault?.change?.(listed) ?? listed;
  const [, from] = /^bytes=(\d+)-$/.exec(request.headers.range ?? "") ?? [];
  const begin = from === undefined || fault?.whole ? 0 : Number(from);
  if (begin > 0)
    response.setHeader("Content-Range", `bytes ${begin}-${content.byteLength - 1}/${content.byteLength}`);
  const part = content.subarray(begin);
  response.writeHead(begin > 0 ? 206 : 200, { "Content-Length": part.byteLength, ETag: etag });
  const only = fault?.cut ?? fault?.stall;
  if (only === undefined) {
    request.sent = part.byteLength;
    response.end(part);
    return;
  }
  request.sent = Math.min(only, part.byteLength);
  response.write(part.subarray(0, only), () => {
    if (fault?.cut !== undefined) setTimeout(() => response.destroy(), fault.cutDelay ?? 20);
  });
}

function refuse(response: ServerResponse, status: number, code?: string, headers = {}): void {
  if (code !== undefined) response.setHeader("X-Error-Code", code);
  response.writeHead(status, { "Content-Type": "application/json", ...headers });
  response.end(JSON.stringify({ error: `fault ${status}` }));
}

function json(response: ServerResponse, value: unknown): void {
  response.setHeader("Content-Type", "application/json").end(JSON.stringify(value));
}

function addressOf(server: Server): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
