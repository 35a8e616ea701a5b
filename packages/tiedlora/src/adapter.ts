/** An adapter: the parameters that a method adds to a model, and where they act. The model's own weights are never touched. */
import { key, nn, type Device, type Key } from "@tiedlora/core";
import { nearest } from "./nearest.ts";
import { layerOf } from "./match.ts";
import type { Method, PreparedMethod, PrepareContext } from "./method.ts";
import { AdapterStack, Place, SharedWork, weightView, type Owner } from "./place.ts";
import { planAdapter, type AdapterPlan, type FactorPlan, type SitePlan } from "./plan.ts";
import type { LinearInfo } from "./sites.ts";

export interface AdaptOptions {
  /** All random start values follow from it. Default: 0. */
  readonly seed?: number;
  /** Default: "default". One model can have several adapters, of different names. */
  readonly name?: string;
}

/**
 * Puts a new adapter of `method` on `model`, and freezes the model's own weights. At the start the model answers as
 * before. Asynchronous for methods whose start depends on the frozen weights (DoRA, LoRA-XS).
 *
 * Throws if no module matches the method's target, or if an adapter of this name is there already; the model is then
 * unchanged.
 */
export function adapt(model: nn.Module, method: PreparedMethod, options?: AdaptOptions): Promise<Adapter>;
export function adapt(model: nn.Module, method: Method, options?: AdaptOptions): Adapter;
export function adapt(
  model: nn.Module,
  method: Method,
  options: AdaptOptions = {},
): Adapter | Promise<Adapter> {
  const adapter = createAdapter(model, method, options);
  if (method.prepare === undefined) return adapter.attach(model);
  return prepareFactors(adapter, linearsOf(model), method as PreparedMethod).then(() =>
    adapter.attach(model),
  );
}

/** An adapter for `model` that is not on it yet; the model is unchanged. Throws if its name is taken there. */
export function createAdapter(model: nn.Module, method: Method, options: AdaptOptions = {}): Adapter {
  const linears = linearsOf(model);
  const plan = planAdapter(linearInfos(linears), method);
  const { name = "default", seed = 0 } = options;
  for (const linear of linears.values()) {
    if (stackOf(linear)?.places.some(({ owner }) => (owner as Adapter).name === name)) {
      throw new Error(
        `the model already has an adapter "${name}"; give another name, or detach that one first`,
      );
    }
  }
  return new Adapter(name, method, plan, linears, seed);
}

/** All linear modules of a model by their paths; one that is used in two places by its first. */
export function linearsOf(model: nn.Module): Map<string, nn.Linear> {
  const paths = new Map<nn.Linear, string>();
  for (const [path, module] of model.namedModules()) {
    if (module instanceof nn.Linear && !paths.has(module)) paths.set(module, path);
  }
  return new Map([...paths].map(([linear, path]) => [path, linear]));
}

export function linearInfos(linears: ReadonlyMap<string, nn.Linear>): LinearInfo[] {
  return [...linears].map(([path, linear]) => ({ path, in: linear.inFeatures, out: linear.outFeatures }));
}

/** Which of an adapter's parameters are meant; all conditions that are given must hold. */
export interface FactorSelection {
  /** Names in the method: ["A", "B"]. */
  readonly factors?: readonly string[];
  /** Layers from 0. A factor that is tied belongs to all layers it is used in, and cannot be selected by some of them. */
  readonly layers?: readonly number[];
  /** Some part of the path of a place where the factor is used: "layers.3.self_attn.qkv.u". */
  readonly match?: RegExp;
}

/** What console.log calls in Node. */
const INSPECT = Symbol.for("nodejs.util.inspect.custom");

export class Adapter implements Owner {
  readonly name: string;
  readonly method: Method;
  readonly plan: AdapterPlan;
  readonly seed: number;
  /** Whether it takes part when the model runs. */
  active = true;
  /** Whether dropout is on. */
  training = false;
  /** The step that dropout draws for: the same step gives the same mask, also when a checkpoint is recomputed. */
  step = 0;
  readonly #parameters: ReadonlyMap<FactorPlan, nn.Parameter>;
  readonly #places: readonly (readonly [nn.Linear, Place])[];
  #dropout: { readonly step: number; readonly key: Key } | null = null;

  constructor(
    name: string,
    method: Method,
    plan: AdapterPlan,
    linears: ReadonlyMap<string, nn.Linear>,
    seed: number,
  ) {
    this.name = name;
    this.method = method;
    this.plan = plan;
    this.seed = seed;
    const device = deviceOf(linears, plan);
    this.#parameters = new Map(plan.factors.map((factor) => [factor, createParameter(factor, device, seed)]));
    this.#places = plan.sites.flatMap((site) => this.#placesOf(site, linears));
    Object.defineProperty(this, INSPECT, { value: () => this.toString() });
  }

  #placesOf(plan: SitePlan, linears: ReadonlyMap<string, nn.Linear>): [nn.Linear, Place][] {
    const factors = new Map([...plan.factors].map(([name, factor]) => [name, this.#parameters.get(factor)!]));
    const work = new SharedWork();
    return plan.site.members.map((member) => [
      linears.get(member.path)!,
      new Place(this, member, plan, factors, work),
    ]);
  }

  /** Puts the adapter on the model it was made for, and freezes the model's weights. */
  attach(model: nn.Module): this {
    model.freeze();
    for (const [linear, place] of this.#places) {
      const places = stackOf(linear)?.places ?? [];
      if (!places.includes(place)) linear.adapter = new AdapterStack([...places, place]);
    }
    return this;
  }

  /** Takes the adapter off the model, which then answers exactly as without it. */
  detach(): void {
    for (const [linear, place] of this.#places) {
      const places = stackOf(linear)?.places.filter((one) => one !== place) ?? [];
      linear.adapter = places.length === 0 ? null : new AdapterStack(places);
    }
  }

  get dropoutKey(): Key | null {
    if (!this.training || this.method.dropout === 0) return null;
    if (this.#dropout?.step !== this.step)
      this.#dropout = { step: this.step, key: key(this.seed).fold("dropout").fold(this.step) };
    return this.#dropout.key;
  }

  /** Turns dropout on or off. Freezing is something else: see `freeze`. */
  train(on = true): this {
    this.training = on;
    return this;
  }

  /** Every parameter once, trained or frozen: what an optimizer is given. */
  parameters(): nn.Parameter[] {
    return [...this.#parameters.values()];
  }

  trainableParameters(): nn.Parameter[] {
    return this.parameters().filter((parameter) => parameter.requiresGrad);
  }

  /** Every place with the parameter used there; a tied parameter comes once for each. */
  *namedParameters(): IterableIterator<[path: string, parameter: nn.Parameter]> {
    for (const { site, factors } of this.plan.sites) {
      for (const [name, factor] of factors) yield [`${site.path}.${name}`, this.#parameters.get(factor)!];
    }
  }

  /** The places of tied parameters other than the first: place -> the path that the parameter has in files. */
  aliases(): Map<string, string> {
    return new Map(
      this.plan.factors.flatMap(({ path, aliases }) =>
        aliases.slice(1).map((alias): [string, string] => [alias, path]),
      ),
    );
  }

  /** Each parameter once, by its path in files. */
  stateDict(): Map<string, nn.Parameter> {
    return new Map([...this.#parameters].map(([{ path }, parameter]) => [path, parameter]));
  }

  /** The parameter used at a place such as "model.layers.0.self_attn.qkv.A". */
  parameter(path: string): nn.Parameter {
    for (const [one, parameter] of this.namedParameters()) if (one === path) return parameter;
    const all = [...this.namedParameters()].map(([one]) => one);
    throw new Error(`no parameter at ${path}; the nearest is ${nearest(path, all) ?? all[0]}`);
  }

  /** How many numbers are trained now, and how many there are. */
  count(): { trainable: number; total: number } {
    const sum = (parameters: readonly nn.Parameter[]): number => parameters.reduce((n, p) => n + p.size, 0);
    return { trainable: sum(this.trainableParameters()), total: sum(this.parameters()) };
  }

  /** Stops training the selected parameters (default: all), at any step of a run. They then do not move at all. */
  freeze(selection: FactorSelection = {}): this {
    for (const parameter of this.select(selection)) parameter.requiresGrad = false;
    return this;
  }

  /** Trains the selected parameters (default: all) from now on. */
  unfreeze(selection: FactorSelection = {}): this {
    for (const parameter of this.select(selection)) parameter.requiresGrad = true;
    return this;
  }

  /** The selected parameters. Throws if there are none: a selection that matches nothing does nothing, silently. */
  select(selection: FactorSelection): nn.Parameter[] {
    const known = Object.keys(this.method.factors);
    const unknown = selection.factors?.find((name) => !known.includes(name));
    if (unknown !== undefined) {
      throw new Error(
        `${this.method.name} has no factor ${unknown}, only ${known.join(", ")}; a vector that is frozen at one is left ` +
          `out unless the method is declared with keep: ["${unknown}"]`,
      );
    }
    const selected = [...this.#parameters].filter(([factor]) => isSelected(factor, selection));
    if (selected.length === 0)
      throw new Error(`the selection ${describeSelection(selection)} matches no parameter of the adapter`);
    return selected.map(([, parameter]) => parameter);
  }

  /** How the adapter acts: each adapted linear with its path. */
  *places(): IterableIterator<[linear: nn.Linear, place: Place]> {
    for (const [linear, place] of this.#places) yield [linear, place];
  }

  toString(): string {
    const { trainable, total } = this.count();
    return `Adapter(${this.name}: ${this.method.name}, ${this.plan.sites.length} sites, ${trainable} of ${total} trained)`;
  }
}

function createParameter(factor: FactorPlan, device: Device, seed: number): nn.Parameter {
  const values = factor.spec.init.fill(factor.shape, key(seed).fold(factor.path));
  const parameter = nn.Parameter.from(device, values, factor.shape, "f32", factor.path);
  parameter.requiresGrad = factor.spec.trained;
  return parameter;
}

function deviceOf(linears: ReadonlyMap<string, nn.Linear>, plan: AdapterPlan): Device {
  const { path } = plan.sites[0]!.site.members[0]!;
  const { device } = linears.get(path)!.weight;
  if (device === null) throw new Error(`the weight of ${path} is on no device; load the model first`);
  return device;
}

export function stackOf(linear: nn.Linear): AdapterStack | null {
  const { adapter } = linear;
  if (adapter === null || adapter instanceof AdapterStack) return adapter;
  throw new Error("a linear carries an adapter that is not of this library; remove it first");
}

function isSelected(factor: FactorPlan, { factors, layers, match }: FactorSelection): boolean {
  if (factors !== undefined && !factors.includes(factor.factor)) return false;
  if (match !== undefined && !factor.aliases.some((alias) => match.test(alias))) return false;
  if (layers === undefined) return true;
  const own = [...new Set(factor.aliases.map((alias) => layerOf(alias)))];
  const inside = own.filter((layer) => layer !== null && layers.includes(layer));
  if (inside.length > 0 && inside.length < own.length) {
    throw new Error(
      `${factor.factor} is tied over layers ${own.join(", ")} and cannot be selected in layers ${inside.join(", ")} alone; ` +
        `declare the method with tied: false or in blocks, or select the other factors`,
    );
  }
  return inside.length > 0;
}

function describeSelection({ factors, layers, match }: FactorSelection): string {
  const parts = [
    factors && `factors ${factors.join(", ")}`,
    layers && `layers ${layers.join(", ")}`,
    match && String(match),
  ];
  return parts.filter(Boolean).join(", ") || "(all)";
}

/** Start values from the frozen weights, one site after the other, so that only one weight is on the host at a time. */
async function prepareFactors(
  adapter: Adapter,
  linears: ReadonlyMap<string, nn.Linear>,
  method: PreparedMethod,
): Promise<void> {
  for (const { site, dims, factors } of adapter.plan.sites) {
    const weight = new Float32Array(site.in * site.out);
    for (const { path, offset } of site.members) {
      weight.set(await weightView(linears.get(path)!).data(), offset * site.in);
    }
    const context: PrepareContext = { site, dims, weight, shapeOf: (name) => factors.get(name)!.shape };
    const values = await method.prepare(context);
    for (const [name, start] of Object.entries(values)) {
      if (start !== undefined) adapter.parameter(`${site.path}.${name}`).set(start);
    }
  }
}
