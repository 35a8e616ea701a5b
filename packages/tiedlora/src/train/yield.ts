/**
 * Lets the event loop run during long work. A device that computes on the calling thread returns results without a turn of the
 * event loop, so no signal, message or click would arrive before all work is done.
 */

/** The time between turns, in milliseconds: short enough to seem immediate, although each turn costs a timer of 1 to 4 ms. */
const EVERY_MS = 100;

let last = performance.now();

/** Waits for one turn of the event loop, if the last one was at least `EVERY_MS` ago. */
export async function yieldToEventLoop(): Promise<void> {
  if (performance.now() - last < EVERY_MS) return;
  await new Promise((resolve) => setTimeout(resolve));
  last = performance.now();
}
