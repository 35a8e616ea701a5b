/** Puts the layers of adapters on a model's modules, and takes them off: each module has one stack of layers. */
import type { AttachedAdapter } from "./attached.ts";
import { type AdapterLayer, AdapterStack } from "./layer.ts";
import type { AdaptableModule } from "./modules.ts";
import type { RowGroups } from "./rows.ts";

/** The set of adapters, as stacks need it. */
export interface StackOwner {
  /** The names of all adapters, in the order in which their layers are applied. */
  readonly names: readonly string[];
  /** The rows of the mixed batch that runs now; null if none does. */
  readonly rows: RowGroups | null;
}

/** Adds an adapter's layers to the stacks of its modules. Throws if a module has an adapter that is not of this library. */
export function putOn(adapter: AttachedAdapter, owner: StackOwner): void {
  for (const [host, layer] of adapter.acting()) {
    if (host.adapter !== null && !(host.adapter instanceof AdapterStack))
      throw new Error("a module carries an adapter that is not of this library; remove it first");
    setLayers(host, [...(host.adapter?.layers ?? []), layer], owner);
  }
}

/** Removes an adapter's layers from the stacks of its modules. */
export function takeOff(adapter: AttachedAdapter, owner: StackOwner): void {
  for (const [host, layer] of adapter.acting()) {
    const layers = (host.adapter as AdapterStack | null)?.layers ?? [];
    setLayers(host, layers.filter((one) => one !== layer), owner); // prettier-ignore
  }
}

function setLayers(host: AdaptableModule, layers: readonly AdapterLayer[], owner: StackOwner): void {
  const order = owner.names;
  const at = ({ owner: { name } }: AdapterLayer): number => order.indexOf(name);
  const sorted = [...layers].sort((a, b) => at(a) - at(b));
  host.adapter = sorted.length === 0 ? null : new AdapterStack(sorted, owner);
}
