/** Merges adapters into weights. Sums are computed in f32 and rounded once, to the type of the stored weight. */
import { arange, assign, BYTES, key, normalArray, stack, type Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import type { AttachedAdapter } from "./attached.ts";
import { adaptableModules, storedView, weightView, type AdaptableModule } from "./modules.ts";
import { scaled } from "../method.ts";
import type { AdapterLayer } from "./layer.ts";

/** Which adapters are merged, and which checks are made. */
export interface MergeOptions {
  /** The names of the adapters. Default: the active adapters. */
  readonly names?: readonly string[];
  /** Whether factors or results that are not finite are an error. Default: true. */
  readonly safe?: boolean;
}

/** The model's own parameters by path, even where other parameters replace them now. */
type Own = ReadonlyMap<string, nn.Parameter>;

/** A weight [out, in] (of a norm, its scale as [out, 1]) and a bias [out] with updates added, in f32; a bias of null means that it does not change. */
export interface MergedTensors {
  readonly weight: Tensor;
  readonly bias: Tensor | null;
}

/** The layers of all given adapters by module, in the order of the adapters. Throws if no weight can hold what one of them does. */
export function layersByModule(adapters: readonly AttachedAdapter[]): Map<AdaptableModule, AdapterLayer[]> {
  const found = new Map<AdaptableModule, AdapterLayer[]>();
  for (const adapter of adapters) {
    for (const [host, layer] of adapter.acting()) {
      checkHeld(layer);
      const layers = found.get(host);
      if (layers) layers.push(layer);
      else found.set(host, [layer]);
    }
  }
  return found;
}

/** Computes new parameters with the adapters merged in, by path; the model does not change. Throws as `AdapterSet.merge` does. */
export async function computeMerged(
  adapters: readonly AttachedAdapter[],
  own: Own,
  { safe = true }: MergeOptions,
): Promise<Map<string, nn.Parameter>> {
  if (safe) await checkFactors(adapters);
  const merged = new Map<string, nn.Parameter>();
  for (const [host, layers] of layersByModule(adapters)) {
    const { path } = layers[0]!.member;
    checkUntied(`${path}.weight`, own);
    const { weight, bias } = await mergedTensors(host, layers);
    merged.set(`${path}.weight`, storeAs(host.weight, storedView(host, weight)));
    if (bias !== null) merged.set(`${path}.bias`, storeAs(own.get(`${path}.bias`)!, bias));
  }
  const stored = new Map<nn.Parameter, nn.Parameter>(); // a copy in several places stays one
  for (const [path, parameter] of adapters.flatMap((adapter) => [...adapter.replacements()])) {
    if (merged.has(path)) continue;
    const known = stored.get(parameter) ?? storeAs(own.get(path)!, parameter);
    stored.set(parameter, known);
    merged.set(path, known);
  }
  if (safe) await checkFinite(merged);
  return merged;
}

/** The merged weight and bias of one module, not computed yet. Async because the check that an update is linear reads values. */
export async function mergedTensors(
  host: AdaptableModule,
  layers: readonly AdapterLayer[],
): Promise<MergedTensors> {
  if (host instanceof nn.Norm) {
    layers.forEach(checkHeld);
    const scale = layers.reduce((own, layer) => layer.scaleOf(own, host), host.scale.cast("f32"));
    return { weight: scale.unsqueeze(1), bias: null };
  }
  const bias = host instanceof nn.Linear ? host.bias : null;
  let weight = weightView(host).cast("f32");
  let shift: Tensor | null = null;
  for (const layer of layers) {
    checkHeld(layer);
    const low = layer.lowRank();
    if (low !== null) {
      weight = weight.add(scaled(low.B, layer.scale).matmul(low.A));
      continue;
    }
    const added = await affine(host, layer, weight, bias);
    weight = added.weight;
    if (added.shift !== null) shift = shift === null ? added.shift : shift.add(added.shift);
  }
  if (shift === null) return { weight, bias: null };
  if (bias === null)
    throw new Error(
      `the update of ${layers[0]!.member.path} adds a constant, but the module has no bias to merge it into`,
    );
  return { weight, bias: bias.cast("f32").add(shift) };
}

/** Throws for a method whose effect no weight can hold. */
function checkHeld({ formulas: method }: AdapterLayer): void {
  if (method.prefix !== undefined)
    throw new Error(
      `${method.name} puts keys and values in front of each attention, which no weight can hold; keep the adapter`,
    );
  if (method.prompt !== undefined)
    throw new Error(
      `${method.name} puts vectors in front of each sequence, which no weight can hold; keep the adapter`,
    );
}

/**
 * A formula as an affine map, from its values at the unit vectors and at zero. The module's bias takes part in the constant alone,
 * for formulas that change it. Throws if the formula is no affine map, by its values at three random vectors.
 */
async function affine(
  host: AdaptableModule,
  layer: AdapterLayer,
  weight: Tensor,
  bias: Tensor | null,
): Promise<{ weight: Tensor; shift: Tensor | null }> {
  const { in: width, path } = layer.member;
  const device = host.weight.device!;
  const apply = (x: Tensor): Tensor => layer.linear(x, x.matmul(weight.transpose()), host, null);
  const none = device.tensor(new Float32Array(width), { shape: [1, width] });
  const constant = apply(none);
  const added =
    bias === null ? constant : layer.linear(none, bias.cast("f32").unsqueeze(0), host, bias).sub(bias);
  const columns = apply(arange(width).oneHot(width)).sub(constant);
  const probe = device.tensor(normalArray(key(0).fold("probe"), 3 * width), { shape: [3, width] });
  const error = apply(probe).sub(probe.matmul(columns).add(constant)).abs().max();
  const [size = 0, off = 0, shift = 0] = await stack([
    apply(probe).abs().max(),
    error,
    added.abs().max(),
  ]).data();
  if (off > 1e-3 * size) {
    throw new Error(
      `the update of ${path} by ${layer.owner.method.name} is not a linear map of its input, so no weight can hold it; keep the adapter`,
    );
  }
  return { weight: columns.transpose(), shift: shift === 0 ? null : added.squeeze(0) };
}

/** Makes a new frozen parameter of the shape and type of `like`, computed on its device. */
function storeAs(like: nn.Parameter, value: Tensor): nn.Parameter {
  const device = like.device!;
  const storage = device.allocate(like.size * BYTES[like.dtype], like.name);
  const parameter = new nn.Parameter(storage, like.shape, like.dtype, device);
  parameter.requiresGrad = false;
  assign([[parameter, value.cast(like.dtype)]]);
  return parameter;
}

async function checkFactors(adapters: readonly AttachedAdapter[]): Promise<void> {
  for (const adapter of adapters) {
    for (const [path, parameter] of adapter.stateDict()) {
      const values = await parameter.data();
      if (values.every(Number.isFinite)) continue;
      throw new Error(
        `adapter "${adapter.name}" has values that are not finite at ${path}; the weights are untouched`,
      );
    }
  }
}

async function checkFinite(merged: ReadonlyMap<string, nn.Parameter>): Promise<void> {
  const largest = await stack([...merged.values()].map((p) => p.cast("f32").abs().max())).data();
  const paths = [...merged.keys()];
  largest.forEach((value, i) => {
    if (!Number.isFinite(value)) {
      throw new Error(
        `merging would put values that are not finite into ${paths[i]}: it is stored as ${merged.get(paths[i]!)!.dtype}; the weights are untouched`,
      );
    }
  });
}

/** Throws if the weight at `path` is also used at another path. */
export function checkUntied(path: string, own: Own): void {
  const weight = own.get(path);
  const others = [...own].filter(([one, p]) => p === weight && one !== path).map(([one]) => one);
  if (others.length === 0) return;
  const module = path.slice(0, -".weight".length);
  throw new Error(
    `${path} is the same weight as ${others.join(", ")}: merging into it would change both. ` +
      `Give it a weight of its own first: untie(model, "${module}"), or tiedlora merge --untie`,
  );
}

/**
 * Gives a module that shares its weight with other modules a weight of its own, with the same values. A decoder whose output
 * embedding is untied is saved with "tie_word_embeddings": false. Throws if there is no linear, embedding or norm at `path`, or if its
 * weight is not shared.
 */
export function untie(model: nn.Module, path: string): void {
  const host = adaptableModules(model).get(path);
  if (host === undefined) throw new Error(`there is no linear, embedding or norm at ${path}`);
  const { weight } = host;
  const uses = [...model.namedParameters()].filter(([, parameter]) => parameter === weight);
  if (uses.length < 2) throw new Error(`the weight of ${path} is not shared with another module`);
  host.weight = storeAs(weight, weight);
}
