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

/**
 * The content security policy: code, WebAssembly, workers and data come from this server alone; no other page may frame the page. With
 * more sources of code, or of data, where a file needs them.
 */
const policy = ({ code = "", data = "" } = {}): string =>
  [
    "default-src 'self'",
    `script-src 'self' 'wasm-unsafe-eval'${code}`,
    `connect-src 'self'${data}`,
    "worker-src 'self' blob:",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:",
    "object-src 'none'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; ");
const POLICY = policy();
const POLICY_OF_COMPILERS = policy({ code: " 'unsafe-eval'" });
const POLICY_OF_LOADERS = policy({ data: " https: http:" });

/** A folder of files, and the URL path under which it is served, e.g. "/" or "/base/". */
export interface Mount {
  readonly path: string;
  readonly folder: string;
  /** Whether its scripts are workers that compile text to code, as a backend that writes JavaScript does. Default: false. */
  readonly compiles?: boolean;
  /** Its scripts, as paths below `path`, that may ask other servers for data, as the worker that loads models from a hub does. */
  readonly loaders?: readonly string[];
}

/**
 * The mounts of the built page: only its lessons, each of which runs in its own worker, compile text to code, and only the worker that
 * trains asks other servers.
 */
export function pageMounts(folder: string): Mount[] {
  return [
    { path: "/", folder, loaders: ["worker.js"] },
    { path: "/lessons/", folder: join(folder, "lessons"), compiles: true },
  ];
}

export interface ServeOptions {
  /** The port; 0 for any free one. */
  readonly port: number;
  /** The address to listen on. Default: 127.0.0.1, which only this machine can reach. */
  readonly host?: string;
  /** Whether pages are cross-origin isolated; if not, WebAssembly has one thread. Default: true. */
  readonly isolated?: boolean;
}

/** Serves `mounts`; of the mounts that fit a URL, the one with the longest path answers. Rejects if the port is taken. */
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
 * Whether a request was meant for this machine. A foreign page can make its own host name resolve to this address (DNS
 * rebinding), and would then read everything here as its own origin: the Host header has that name. An IP address in the
 * header cannot be rebound.
 */
export function isOwnName(header: string | undefined, host: string): boolean {
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
    "content-security-policy": policyOf(mount!, path!),
    "x-content-type-options": "nosniff",
    ...(isolated ? HEADERS : { "cache-control": HEADERS["cache-control"] }),
  });
  if (request.method === "HEAD") return void response.end();
  // Also closes the file if the reader disconnects before its end.
  pipeline(createReadStream(file), response, () => undefined);
}

function policyOf({ path, compiles, loaders = [] }: Mount, file: string): string {
  if (compiles) return POLICY_OF_COMPILERS;
  return loaders.includes(file.slice(path.length)) ? POLICY_OF_LOADERS : POLICY;
}

/** The decoded path of a URL; null if it is malformed. */
function pathOf(url: string): string | null {
  try {
    return decodeURIComponent(new URL(url, "http://localhost").pathname);
  } catch {
    return null;
  }
}

/** The file of a URL path; null if it is outside of the folder. */
function fileOf(mount: Mount, path: string): string | null {
  if (path.includes("\0")) return null;
  const rest = normalize(path.slice(mount.path.length) || "index.html");
  return rest === ".." || rest.startsWith(`..${sep}`) ? null : join(mount.folder, rest);
}
