/**
 * The choice of adapters for a call of a model. The models know about adapters only that they can be chosen: the library of
 * adapters puts an `AdapterSelector` on the model.
 */

import type { AdapterChoice, AdapterSelector } from "@tiedlora/nn";

export type { AdapterChoice, AdapterSelector } from "@tiedlora/nn";

/** The options of a model's call that concern adapters. */
export interface AdapterOptions {
  /** The adapters that this call uses. Default: the adapters that are active on the model. */
  readonly adapters?: AdapterChoice;
}

/** Runs `work` with the adapters of `options`, or with the active ones. Throws if adapters are named but the model has none. */
export function withAdapters<T>(
  selector: AdapterSelector | null,
  { adapters }: AdapterOptions,
  work: () => T,
): T {
  if (adapters === undefined) return work();
  if (selector !== null) return selector.using(adapters, work);
  if (Array.isArray(adapters) && adapters.length === 0) return work();
  throw new Error(
    `adapters: ${JSON.stringify(adapters)} given, but the model has no adapters; attach one first, with adapt or loadAdapter`,
  );
}
