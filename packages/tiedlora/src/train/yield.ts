/**
 * Lets the process see to other things. A device that computes on the calling thread answers without the event loop ever
 * turning: no signal, message or click would arrive before all work is done.
 */

/** Often enough to seem immediate; a turn costs a timer, one to four milliseconds. */
const EVERY_MS = 100;

let last = performance.now();

/** Waits for one turn of the event loop, if there has been none for a while. */
export async function yieldToEventLoop(): Promise<void> {
  if (performance.now() - last < EVERY_MS) return;
  await new Promise((resolve) => setTimeout(resolve));
  last = performance.now();
}
