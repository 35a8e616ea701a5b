/**
 * The interface between models and adapter libraries: a layer has a slot for an adapter (see `Linear.adapter`), and a model may
 * have a slot for a selector, which the library fills so that each call of the model can choose its adapters.
 */

/**
 * The name of one adapter; a list of names of adapters that are active together (an empty list: the model without adapters); or,
 * for each row of a batch, the name of its adapter ("__base__": none).
 */
export type AdapterChoice = string | readonly string[] | { readonly rows: readonly string[] };

/**
 * All that an adapter's results depend on beside its arguments and the values of parameters, such as settings that can be changed: as
 * long as the entries are the same objects and numbers, the adapter builds the same graph. Models generate text faster through adapters
 * that say so, since they build the graph of a step once; without it they build it for each token.
 */
export type GraphState = readonly unknown[];

/** Applies a choice of adapters for the duration of a call. */
export interface AdapterSelector {
  /** Runs `work`, which must be synchronous, with exactly the chosen adapters. Throws if a name is unknown. */
  using<T>(choice: AdapterChoice, work: () => T): T;
  /** Returns a function that runs `work` with the adapters that are active now, whenever it is called. */
  bound<A extends unknown[], T>(work: (...args: A) => T): (...args: A) => T;
}
