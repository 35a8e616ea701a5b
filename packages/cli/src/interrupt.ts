/**
 * Requests to stop: Ctrl-C, a signal to end, or an output whose reader has gone. Work that can be left in good order
 * is; a second Ctrl-C does not wait for that.
 */
import { EXIT } from "./exit.ts";

/** Ctrl-C, `kill`, and a terminal that is closed. */
export const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

interface Running {
  readonly controller: AbortController;
  /** Why it was asked to stop, where that is a failure. */
  failure: Error | null;
}

let running: Running | null = null;

/**
 * Runs `work`, which ends in good order soon after its signal is aborted: by Ctrl-C, or `requestStop`. Throws what
 * `requestStop` was given, when the work has ended.
 */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const own: Running = { controller: new AbortController(), failure: null };
  const onSignal = (): void => {
    if (own.controller.signal.aborted) process.exit(EXIT.interrupted);
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

/** Asks the running work to stop, and to end with `failure` if that is given. Returns whether there is any. */
export function requestStop(failure: Error | null = null): boolean {
  if (running === null) return false;
  running.failure ??= failure;
  running.controller.abort();
  return true;
}
