/** Hosts, which are the modules of a model on which adapters act, and the fields of a model that hold its parameters. */
import type { Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import type { LinearInfo } from "../linear-info.ts";

/** A module that can carry an adapter. */
export type AdaptableModule = nn.Linear | nn.Embedding | nn.Norm;

/** All linears, embeddings and norms of a model by path; a module that is used in several places has the first of its paths. */
export function adaptableModules(model: nn.Module): Map<string, AdaptableModule> {
  const paths = new Map<AdaptableModule, string>();
  for (const [path, module] of model.namedModules()) {
    const adaptable =
      module instanceof nn.Linear || module instanceof nn.Embedding || module instanceof nn.Norm;
    if (adaptable && !paths.has(module)) paths.set(module, path);
  }
  return new Map([...paths].map(([host, path]) => [path, host]));
}

/** The descriptions of a model's hosts, for planning. */
export function moduleInfos(hosts: ReadonlyMap<string, AdaptableModule>): LinearInfo[] {
  return [...hosts].map(([path, host]) => {
    if (host instanceof nn.Linear)
      return { path, in: host.inFeatures, out: host.outFeatures, kind: "linear" };
    const [rows, width] = host.weight.shape as [number, number];
    return host instanceof nn.Norm
      ? { path, in: 1, out: rows, kind: "norm" }
      : { path, in: rows, out: width, kind: "embedding" };
  });
}

/** Whether a host's weight is stored as [in, out]: GPT-2's linears, and embeddings. */
export function storedInOut(host: AdaptableModule): boolean {
  return host instanceof nn.Embedding || (host instanceof nn.Linear && host.layout === "inOut");
}

/** The frozen weight as [out, in], in either way of storage; of a norm, its scale as [out, 1]. */
export function weightView(host: AdaptableModule): Tensor {
  if (host instanceof nn.Norm) return host.scale.unsqueeze(1);
  return storedInOut(host) ? host.weight.transpose() : host.weight;
}

/** A weight [out, in] as the host stores its own: the inverse of `weightView`. */
export function storedView(host: AdaptableModule, weight: Tensor): Tensor {
  if (host instanceof nn.Norm)
    return (host.scaleOffset === 0 ? weight : weight.sub(host.scaleOffset)).squeeze(1);
  return storedInOut(host) ? weight.transpose() : weight;
}

/** A module's field that holds a parameter. */
export interface Slot {
  readonly module: nn.Module;
  readonly field: string;
}

/** Every field of a model that holds a parameter, by the parameter's path; a tied parameter has several. */
export function slotsOf(model: nn.Module): Map<string, Slot> {
  const slots = new Map<string, Slot>();
  for (const [path, module] of model.namedModules()) {
    for (const [field, value] of Object.entries(module)) {
      if (value instanceof nn.Parameter)
        slots.set(path === "" ? field : `${path}.${field}`, { module, field });
    }
  }
  return slots;
}

export function readSlot({ module, field }: Slot): nn.Parameter {
  return (module as unknown as Record<string, nn.Parameter>)[field]!;
}

export function writeSlot({ module, field }: Slot, parameter: nn.Parameter): void {
  (module as unknown as Record<string, nn.Parameter>)[field] = parameter;
}
