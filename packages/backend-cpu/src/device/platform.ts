/**
 * What the JavaScript engine and its host offer: threads, relaxed SIMD, shared memory. Node's modules are loaded at run time,
 * so that the same code loads in a browser.
 */
import { Module } from "../codegen/assembler.ts";
import type { Tile } from "../codegen/matmul/gemm.ts";
import { f32x4, v128 } from "../codegen/instructions.ts";

/** A worker that was started with its source. */
export interface WorkerHandle {
  post(message: unknown): void;
  /** Sets whether the worker keeps the process alive. */
  keepAlive(on: boolean): void;
  onFailure(report: (reason: string) => void): void;
  terminate(): void;
}

interface NodeWorker {
  postMessage(message: unknown, transfer: readonly []): void;
  ref(): void;
  unref(): void;
  on(event: "error", listener: (error: Error) => void): void;
  on(event: "exit", listener: (code: number) => void): void;
  terminate(): Promise<number>;
}

interface NodeModules {
  "node:worker_threads": {
    readonly Worker: new (
      source: string,
      options: { eval: boolean; execArgv: readonly string[] },
    ) => NodeWorker;
  };
  "node:os": {
    availableParallelism(): number;
    homedir(): string;
    cpus(): readonly { readonly model: string }[];
  };
  "node:v8": { setFlagsFromString(flags: string): void };
  "node:fs/promises": {
    readFile(path: string, encoding: "utf8"): Promise<string>;
    writeFile(path: string, text: string): Promise<void>;
    mkdir(path: string, options: { recursive: true }): Promise<unknown>;
    rename(from: string, to: string): Promise<void>;
    rm(path: string, options: { force: true }): Promise<void>;
  };
  "node:path": { join(...parts: string[]): string; dirname(path: string): string };
  "node:crypto": { createHash(name: "sha256"): Hash };
  "node:child_process": {
    execFile(
      file: string,
      args: readonly string[],
      options: { timeout: number; killSignal: string },
      done: (error: ProcessError | null, stdout: string) => void,
    ): void;
  };
}

interface Hash {
  update(data: string | Uint8Array): Hash;
  digest(encoding: "hex"): string;
}

interface ProcessError extends Error {
  readonly killed?: boolean;
  readonly signal?: string | null;
  readonly code?: number | string | null;
}

interface NodeProcess {
  readonly versions?: { readonly v8?: string };
  readonly arch?: string;
  readonly pid?: number;
  readonly execPath?: string;
  readonly execArgv?: readonly string[];
  readonly env?: Readonly<Record<string, string | undefined>>;
  getBuiltinModule?<K extends keyof NodeModules>(name: K): NodeModules[K] | undefined;
}

/** Node's process; also in Bun and Deno. Undefined in browsers. */
export const nodeProcess: NodeProcess | undefined = (globalThis as { process?: NodeProcess }).process;

/** A module of Node; undefined in browsers. */
export function nodeModule<K extends keyof NodeModules>(name: K): NodeModules[K] | undefined {
  return nodeProcess?.getBuiltinModule?.(name);
}

/** How many threads this machine runs at once. */
export function parallelism(): number {
  const os = nodeModule("node:os");
  if (os !== undefined) return os.availableParallelism();
  return (globalThis as { navigator?: { hardwareConcurrency?: number } }).navigator?.hardwareConcurrency ?? 1;
}

/** Whether memory can be shared with workers; pages need cross-origin isolation for it. */
export function canShareMemory(): boolean {
  const isolated = (globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated;
  return typeof SharedArrayBuffer !== "undefined" && isolated !== false;
}

/** Starts a worker from self-contained source, so that loaders and bundlers need not find a file. */
export function startWorker(source: string): WorkerHandle {
  const threads = nodeModule("node:worker_threads");
  if (threads !== undefined) {
    const worker = new threads.Worker(source, { eval: true, execArgv: [] }); // the process's loaders and input types do not apply
    worker.unref();
    return {
      post: (message) => worker.postMessage(message, []),
      keepAlive: (on) => (on ? worker.ref() : worker.unref()),
      onFailure: (report) => {
        worker.on("error", (error) => report(error.message));
        worker.on("exit", (code) => report(`it ended with code ${code}`));
      },
      terminate: () => void worker.terminate(),
    };
  }
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const worker = new Worker(url);
  return {
    post: (message) => worker.postMessage(message, []),
    keepAlive: () => undefined,
    onFailure: (report) => worker.addEventListener("error", (event) => report(event.message || NO_REASON)),
    terminate: () => {
      worker.terminate();
      URL.revokeObjectURL(url);
    },
  };
}

/** A violation of a page's content-security-policy, as browsers report it. */
interface Violation {
  readonly effectiveDirective: string;
  readonly originalPolicy: string;
}

/**
 * Why workers cannot be started here; null if they can. A page's content-security-policy may forbid them, which browsers
 * report only after an attempt. Where Node's workers exist, no attempt is made.
 */
export async function whyNoWorkers(): Promise<string | null> {
  if (nodeModule("node:worker_threads") !== undefined) return null;
  let violation: Violation | null = null;
  const note = (event: unknown): void => void (violation ??= event as Violation);
  const target = globalThis as unknown as EventTarget;
  target.addEventListener("securitypolicyviolation", note);
  try {
    await answered("self.postMessage(0)");
    return null;
  } catch (error) {
    await new Promise((resolve) => setTimeout(resolve, 10)); // the report may come after the error
    return explained(violation, error instanceof Error ? error.message : String(error));
  } finally {
    target.removeEventListener("securitypolicyviolation", note);
  }
}

function explained(violation: Violation | null, reason: string): string {
  if (violation === null) return `a worker could not be started: ${reason}`;
  const { effectiveDirective, originalPolicy } = violation;
  const lacks =
    effectiveDirective === "worker-src" || effectiveDirective === "script-src"
      ? `has no "worker-src blob:"`
      : `does not allow it (${effectiveDirective})`;
  return `the page's content-security-policy ${lacks}, which workers need; it is: ${originalPolicy}`;
}

/** Starts a worker and waits for its first message. */
async function answered(source: string): Promise<void> {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  let worker: Worker | undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      worker = new Worker(url);
      worker.addEventListener("message", () => resolve());
      worker.addEventListener("error", (event) => reject(new Error(event.message || NO_REASON)));
    });
  } finally {
    worker?.terminate();
    URL.revokeObjectURL(url);
  }
}

/** The reason that is reported if the browser gives none. */
const NO_REASON =
  'the browser gave no reason; the usual one is a content-security-policy of the page without "worker-src blob:"';

/** Whether this engine compiles relaxed-SIMD fused multiply-add. */
function acceptsRelaxedSimd(): boolean {
  const module = new Module();
  module.fn("probe", ["i32"], [], (f, p) => {
    v128.store(f, p, f32x4.relaxed_madd(v128.load(p), v128.load(p), v128.load(p)));
  });
  return WebAssembly.validate(module.bytes({ shared: false }));
}

let relaxedSimd: boolean | undefined;

/**
 * Whether to use fused multiply-add. Node 20's V8 (11.3) has it behind a flag that can be set at run time; the flag must be
 * set before the first module that uses it, and applies to the whole process.
 */
export function hasRelaxedSimd(): boolean {
  if (relaxedSimd === undefined) {
    if (nodeProcess?.versions?.v8?.startsWith("11.") === true && !acceptsRelaxedSimd()) {
      nodeModule("node:v8")?.setFlagsFromString("--experimental-wasm-relaxed-simd");
    }
    relaxedSimd = acceptsRelaxedSimd();
  }
  return relaxedSimd;
}

/** V8's flag for combining pairs of 128-bit SIMD operations into 256-bit ones; off by default in all versions so far. */
const REVECTORIZE = "--experimental-wasm-revectorize";

/** The major version of V8; Infinity in other engines and unknown versions. */
function v8Version(): number {
  return Number.parseInt(nodeProcess?.versions?.v8 ?? "Infinity", 10) || Infinity;
}

/**
 * Whether to generate code for 256-bit revectorization. If `wanted` is true, turns V8's flag on, for the whole process and
 * modules compiled from now on; if undefined, returns whether the process was started with the flag.
 */
export function revectorizes(wanted: boolean | undefined): boolean {
  if (wanted === false || v8Version() < 13 || nodeProcess === undefined) return false;
  const flags = [...(nodeProcess.execArgv ?? []), ...(nodeProcess.env?.["NODE_OPTIONS"] ?? "").split(/\s+/)];
  if (flags.some((flag) => flag.replaceAll("_", "-") === REVECTORIZE)) return true;
  if (wanted !== true) return false;
  nodeModule("node:v8")?.setFlagsFromString(REVECTORIZE);
  return true;
}

/** The register tile that is fastest on this engine, as measured; see `Tile.rowGroup` for V8 before 12. */
export function defaultTile(wide: boolean): Tile {
  const fma = hasRelaxedSimd();
  if (wide) return { rows: 6, vectors: 4, unroll: 8, rowPointers: true, fma };
  return v8Version() < 12
    ? { rows: 6, vectors: 2, unroll: 1, rowGroup: 2, fma }
    : { rows: 6, vectors: 2, unroll: 2, fma };
}
