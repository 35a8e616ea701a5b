/**
 * Which adapters a call of a model goes through. The models know nothing of adapters but that somebody may choose among them:
 * the library of adapters puts an `AdapterSelector` on the model.
 */

import type { AdapterChoice, AdapterSelector } from "@tiedlora/nn";

export type { AdapterChoice, AdapterSelector } from "@tiedlora/nn";

/** What a model's call is told about adapters. */
export interface AdapterOptions {
  /** The adapters that this call goes through. Default: those that are active on the model. */
  readonly adapters?: AdapterChoice;
}

/** Runs `work` with the adapters of `options`, or as the model is. */
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
