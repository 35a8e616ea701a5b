/** What the graph of a decoder's pass depends on beside its inputs: which parameters and adapters are in its modules. */
import type { Parameter } from "@tiedlora/core";
import type * as nn from "@tiedlora/nn";

/** A module with a weight, as far as it has these fields. */
interface Host {
  readonly weight: Parameter;
  readonly bias?: Parameter | null;
  readonly adapter?: nn.LinearAdapter | nn.EmbeddingAdapter | nn.NormAdapter | null;
}

const HOSTS = new WeakMap<nn.Module, readonly Host[]>();

function hostsOf(model: nn.Module): readonly Host[] {
  let hosts = HOSTS.get(model);
  if (hosts === undefined) {
    const modules = new Set([...model.namedModules()].map(([, module]) => module));
    hosts = [...modules].filter((module): module is nn.Module & Host => "weight" in module);
    HOSTS.set(model, hosts);
  }
  return hosts;
}

/**
 * Two passes with the same inputs build the same graph if all entries of their states are identical. Null if an adapter does not say
 * what its results depend on.
 */
export function graphState(model: nn.Module): readonly unknown[] | null {
  const state: unknown[] = [];
  for (const { weight, bias, adapter } of hostsOf(model)) {
    state.push(weight, bias, adapter);
    if (!adapter) continue;
    if (adapter.state === undefined) return null;
    for (const one of adapter.state()) state.push(one);
  }
  return state;
}
