/** What a model's set of adapters, and merging, need of each adapter. */
import type * as nn from "@tiedlora/nn";
import type { AdapterLayer, AdapterState } from "./layer.ts";
import type { AdaptableModule } from "./modules.ts";
import type { AdapterPlan } from "./plan.ts";

/** An adapter as its set sees it. */
export interface AttachedAdapter extends AdapterState {
  readonly plan: AdapterPlan;
  /** Whether it is one of those that take part when the model runs. */
  readonly active: boolean;
  /** Sets `active` alone: the set makes the model follow. */
  switch(active: boolean): void;
  /** Each adapted module with the adapter's part in it. */
  layers(): IterableIterator<[host: AdaptableModule, layer: AdapterLayer]>;
  /** The copies of the model's own parameters, by the path of what they stand in for. */
  replacements(): IterableIterator<[path: string, parameter: nn.Parameter]>;
  /** Each parameter once, by its path in files. */
  stateDict(): Map<string, nn.Parameter>;
}
