/**
 * How a model and a library of adapters meet: layers have a place for an adapter (see `Linear.adapter`), and a model can have a
 * selector, which the library puts there, so that a call chooses the adapters that it goes through.
 */

/**
 * The name of one adapter; the names of several that act together, none of them meaning the model without adapters; or, for each
 * row of a batch, the name of its own adapter ("__base__": none).
 */
export type AdapterChoice = string | readonly string[] | { readonly rows: readonly string[] };

/** Applies a choice for the time of a call. */
export interface AdapterSelector {
  /** Runs `work`, which must not be asynchronous, with exactly the chosen adapters. Throws if a name is unknown. */
  using<T>(choice: AdapterChoice, work: () => T): T;
  /** `work`, to be run with the adapters that take part now, whenever it is called. */
  bound<A extends unknown[], T>(work: (...args: A) => T): (...args: A) => T;
}
