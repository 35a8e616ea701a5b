/**
 * Requests to stop: Ctrl-C, a signal to terminate, or an output whose reader has gone. Work that can stop in good order does
 * so; a second Ctrl-C ends the process at once.
 */
import { EXIT } from "./exit.ts";

/** The signals of Ctrl-C, `kill`, and a terminal that is closed. */
export const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

interface Running {
  readonly controller: AbortController;
  /** The failure that led to the request to stop; null if there was none. */
  failure: Error | null;
}

/** A batch system may send SIGTERM to a process and to its script, which passes it on: within so long, that is one request. */
const SAME_MS = 1000;

let running: Running | null = null;

/**
 * Runs `work`, which must end in good order soon after its signal is aborted: by Ctrl-C, or by `requestStop`. Throws the
 * failure that `requestStop` was given, if any, once the work has ended.
 */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const own: Running = { controller: new AbortController(), failure: null };
  let terminated = -Infinity;
  const onSignal = (name: NodeJS.Signals): void => {
    if (name === "SIGTERM" && performance.now() - terminated < SAME_MS) return;
    if (own.controller.signal.aborted) process.exit(EXIT.interrupted);
    if (name === "SIGTERM") terminated = performance.now();
    own.controller.abort();
  };
  for (const name of SIGNALS) process.on(name, onSignal);
  running = own;
  try {
    const result = await work(own.controller.signal);
    if (own.failure !== null) throw own.failure;
    return result;
  } finally {
    running = null;
    for (const name of SIGNALS) process.off(name, onSignal);
  }
}

/** Asks the running work to stop, and to end with `failure` if that is given. Returns whether any work is running. */
export function requestStop(failure: Error | null = null): boolean {
  if (running === null) return false;
  running.failure ??= failure;
  running.controller.abort();
  return true;
}
