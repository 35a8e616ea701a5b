/**
 * A small server of static files for the playground. It answers with the headers that make a page cross-origin isolated,
 * so that WebAssembly has threads there.
 */
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { isIP } from "node:net";
import { hostname } from "node:os";
import { extname, join, normalize, sep } from "node:path";
import { pipeline } from "node:stream";

const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json",
  ".map": "application/json",
  ".svg": "image/svg+xml",
};

const HEADERS = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
  "cache-control": "no-cache",
} as const;

/** Code comes from here alone, WebAssembly and workers of its own included; nothing may frame the page. */
const policy = (more = ""): string =>
  [
    "default-src 'self'",
    `script-src 'self' 'wasm-unsafe-eval'${more}`,
    "worker-src 'self' blob:",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:",
    "object-src 'none'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; ");
const POLICY = policy();
const POLICY_OF_COMPILERS = policy(" 'unsafe-eval'");

/** A folder of files, and the path of the address that it is found under, "/" or "/base/". */
export interface Mount {
  readonly path: string;
  readonly folder: string;
  /** Its scripts are workers that make code out of text, as a backend does that writes JavaScript. Default: false. */
  readonly compiles?: boolean;
}

/** The built page: nothing in it makes code out of text, but for the lessons, each of which runs in a worker of its own. */
export function pageMounts(folder: string): Mount[] {
  return [
    { path: "/", folder },
    { path: "/lessons/", folder: join(folder, "lessons"), compiles: true },
  ];
}

export interface ServeOptions {
  /** 0: any that is free. */
  readonly port: number;
  /** Default: this machine alone. */
  readonly host?: string;
  /** Without it WebAssembly has one thread. Default: true. */
  readonly isolated?: boolean;
}

/** Serves `mounts`; of those that fit, the one with the longest path answers. Rejects when the port is taken. */
export function serveStatic(mounts: readonly Mount[], options: ServeOptions): Promise<Server> {
  const { port, host = "127.0.0.1", isolated = true } = options;
  const byLength = [...mounts].sort((a, b) => b.path.length - a.path.length);
  const server = createServer((request, response) => {
    if (!isOwnName(request.headers.host, host)) return void response.writeHead(403).end(FOREIGN);
    answer(byLength, isolated, request, response).catch((error: unknown) => {
      response.writeHead(500).end(error instanceof Error ? error.message : String(error));
    });
  });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => resolve(server));
  });
}

const FOREIGN = "This server answers to addresses and to the names of its own machine alone.";

/**
 * Whether a request was meant for this machine. A page from elsewhere can have its own name lead to this address (DNS
 * rebinding) and would read everything here as its own: then the Host header has that name. An address cannot be led.
 */
function isOwnName(header: string | undefined, host: string): boolean {
  const found = /^(\[[0-9a-f:.]+\]|[^:[\]]+)(?::\d+)?$/i.exec(header ?? "");
  if (found === null) return false;
  const name = found[1]!.toLowerCase().replace(/^\[|\]$|\.$/g, "");
  const machine = hostname().toLowerCase();
  return isIP(name) !== 0 || ["localhost", host.toLowerCase(), machine, `${machine}.local`].includes(name);
}

async function answer(
  mounts: readonly Mount[],
  isolated: boolean,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  if (request.method !== "GET" && request.method !== "HEAD") return void response.writeHead(405).end();
  const path = pathOf(request.url ?? "/");
  const mount = mounts.find((one) => path?.startsWith(one.path));
  const file = path === null || mount === undefined ? null : fileOf(mount, path);
  const found = file === null ? null : await stat(file).catch(() => null);
  if (file === null || !found?.isFile()) return void response.writeHead(404).end("not found");
  response.writeHead(200, {
    "content-type": TYPES[extname(file)] ?? "application/octet-stream",
    "content-length": found.size,
    "content-security-policy": mount?.compiles ? POLICY_OF_COMPILERS : POLICY,
    "x-content-type-options": "nosniff",
    ...(isolated ? HEADERS : { "cache-control": HEADERS["cache-control"] }),
  });
  if (request.method === "HEAD") return void response.end();
  // Closes the file also when the reader goes away in the middle of it.
  pipeline(createReadStream(file), response, () => undefined);
}

/** The path of an address, decoded; null if it is malformed. */
function pathOf(url: string): string | null {
  try {
    return decodeURIComponent(new URL(url, "http://localhost").pathname);
  } catch {
    return null;
  }
}

/** The file of a path; null outside the folder. */
function fileOf(mount: Mount, path: string): string | null {
  if (path.includes("\0")) return null;
  const rest = normalize(path.slice(mount.path.length) || "index.html");
  return rest === ".." || rest.startsWith(`..${sep}`) ? null : join(mount.folder, rest);
}
