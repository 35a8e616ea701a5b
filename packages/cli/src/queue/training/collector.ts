/**
 * The values and gradients of a step are megabytes outside of V8's heap that live for a moment. V8 takes them for growth of its heap,
 * which is small, and collects all of that at nearly every step; so both ends of a training let it grow by the factor that V8 itself
 * uses at most.
 */
import { setFlagsFromString } from "node:v8";

const flag = (percent: number): string => `--heap-growing-percent=${percent}`;
/** Four times the heap after a collection. */
const MOST = flag(300);
/** As V8 decides. */
const OWN = flag(0);

/** The argument with which a process of Node collects rarely. */
export const COLLECTING_RARELY: string = MOST;

/** Makes this process collect rarely, or as it did before. */
export function collectRarely(rarely: boolean): void {
  setFlagsFromString(rarely ? MOST : OWN);
}
