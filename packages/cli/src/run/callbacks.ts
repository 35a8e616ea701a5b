/** Callbacks of a training on the command line: a module of one's own that is told what happens, e.g. to log it somewhere else. */
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { nearest } from "tiedlora/internal";
import { UsageError } from "../settings.ts";
import type { Metrics } from "./metrics.ts";
import type { RunResult } from "./run.ts";

/** What a callback is told when training begins. */
export interface RunStart {
  /** The directory of the run. */
  readonly out: string;
  /** The settings of the run, by their names in run.yaml. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** The number of steps of the whole run. */
  readonly steps: number;
  /** The steps that were done before; 0 unless the run is resumed. */
  readonly from: number;
}

/** The exports of a file of callbacks, each of which may be left out, and may return a promise. */
export interface Callbacks {
  /** Before the first step. */
  readonly onStart?: (start: RunStart) => unknown;
  /** After a step, with its metrics by the names that metrics.jsonl has. */
  readonly onStep?: (metrics: Metrics) => unknown;
  /** After an evaluation on held-out examples, with its metrics and the step; at step 0, before training. */
  readonly onEvaluate?: (metrics: Metrics) => unknown;
  /** After training, when the adapter is saved, or when it was interrupted. */
  readonly onEnd?: (result: RunResult) => unknown;
}

type Name = keyof Callbacks;
const NAMES: readonly Name[] = ["onStart", "onStep", "onEvaluate", "onEnd"];

/** Reads a file of callbacks: its named exports, or those of its default export. Throws if it is none. */
export async function loadCallbacks(file: string): Promise<Callbacks> {
  const fail = (why: string): never => {
    throw new UsageError(`--callbacks ${file}: ${why}`);
  };
  const url = pathToFileURL(resolve(file)).href;
  const module = await import(url).then(
    (loaded) => loaded as Record<string, unknown>,
    (error: Error & { code?: string }) =>
      fail(error.code === "ERR_UNKNOWN_FILE_EXTENSION" ? `this version of Node (${process.version}) does not read TypeScript; give JavaScript, or run it by Node 22.18 or later` : error.message), // prettier-ignore
  );
  const given = (module["default"] ?? module) as Record<string, unknown>;
  const names = Object.keys(given);
  const stray = names.find((name) => /^on[A-Z]/.test(name) && !NAMES.some((one) => one === name));
  if (stray !== undefined) {
    const close = nearest(stray, NAMES);
    fail(
      `there is no callback ${stray}${close === null ? "" : ` (did you mean ${close}?)`}; there are ${NAMES.join(", ")}`,
    );
  }
  const found = NAMES.filter((name) => given[name] !== undefined);
  if (found.length === 0) fail(`it exports none of ${NAMES.join(", ")}`);
  const wrong = found.find((name) => typeof given[name] !== "function");
  if (wrong !== undefined) fail(`${wrong} is ${typeof given[wrong]}; expected a function`);
  return given;
}

/** Calls the callbacks one after another, in the order of what happens; training does not wait for them. */
export class Telling {
  readonly #callbacks: Callbacks;
  #last: Promise<void> = Promise.resolve();
  #failure: Error | null = null;

  constructor(callbacks: Callbacks) {
    this.#callbacks = callbacks;
  }

  /** Calls a callback after those before it. Throws if one of these has failed. */
  tell<N extends Name>(name: N, given: Parameters<NonNullable<Callbacks[N]>>[0]): void {
    if (this.#failure !== null) throw this.#failure;
    const call = this.#callbacks[name] as ((given: unknown) => unknown) | undefined;
    if (call !== undefined) this.#last = this.#after(this.#last, name, () => call(given));
  }

  async #after(last: Promise<void>, name: Name, call: () => unknown): Promise<void> {
    await last;
    if (this.#failure !== null) return;
    try {
      await call();
    } catch (cause) {
      this.#failure = new Error(`--callbacks: ${name} failed: ${cause instanceof Error ? cause.message : String(cause)}`, { cause }); // prettier-ignore
    }
  }

  /** Resolves when no callback runs any more. */
  settled(): Promise<void> {
    return this.#last;
  }

  /** Waits for the callbacks. Throws what one has failed with. */
  async end(): Promise<void> {
    await this.#last;
    if (this.#failure !== null) throw this.#failure;
  }
}
