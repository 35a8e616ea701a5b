/**
 * Which adapters a call of a model goes through. The models know nothing of adapters but that somebody may choose among them:
 * the library of adapters puts an `AdapterSelector` on the model.
 */

/**
 * The name of one adapter; the names of several that act together, none of them meaning the model without adapters; or, for each
 * row of a batch, the name of its own adapter ("__base__": none).
 */
export type AdapterChoice = string | readonly string[] | { readonly rows: readonly string[] };

/** What a model's call is told about adapters. */
export interface AdapterOptions {
  /** The adapters that this call goes through. Default: those that are active on the model. */
  readonly adapters?: AdapterChoice;
}

/** Applies a choice for the time of a call. */
export interface AdapterSelector {
  /** Runs `work`, which must not be asynchronous, with exactly the chosen adapters. Throws if a name is unknown. */
  using<T>(choice: AdapterChoice, work: () => T): T;
  /** `work`, to be run with the adapters that take part now, whenever it is called. */
  bound<A extends unknown[], T>(work: (...args: A) => T): (...args: A) => T;
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
