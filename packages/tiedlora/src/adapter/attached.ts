/** The interface of an adapter for the model's set of adapters, and for merging. */
import type * as nn from "@tiedlora/nn";
import type { AdapterLayer, AdapterState } from "./layer.ts";
import type { AdaptableModule } from "./modules.ts";
import type { AdapterPlan } from "./plan.ts";

/** An adapter, as its set and merging use it. */
export interface AttachedAdapter extends AdapterState {
  readonly plan: AdapterPlan;
  /** Whether the adapter takes part when the model runs, outside of scopes. */
  readonly active: boolean;
  /** Sets `active` without updating the model; the set updates it afterwards. */
  switch(active: boolean): void;
  /** Each module on which the adapter acts, with its layer in it. */
  acting(): IterableIterator<[host: AdaptableModule, layer: AdapterLayer]>;
  /** The trained copies of the model's own parameters, by the path of the parameter that each replaces. */
  replacements(): IterableIterator<[path: string, parameter: nn.Parameter]>;
  /** Each parameter once, by its path in files. */
  stateDict(): Map<string, nn.Parameter>;
}
