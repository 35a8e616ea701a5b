/** An adapter: the parameters that a method adds to a model, and where they act. It never changes the model's own weights. */
import { assign, key, product, type Device, type Key, type Tensor, type TypedArray } from "@tiedlora/core";
import { checkOptions, refuse } from "@tiedlora/core/arguments";
import * as nn from "@tiedlora/nn";
import { AdapterSet } from "./adapter-set.ts";
import type { AttachedAdapter } from "./attached.ts";
import { checkRecord, checkStart } from "./formula.ts";
import { moduleInfos, weightView, type AdaptableModule } from "./modules.ts";
import { layerOf } from "../match.ts";
import type { Span } from "../init.ts";
import type { Method, PlainMethod, PreparedMethod, PrepareContext } from "../method.ts";
import { streamedModel, withWeights } from "../model.ts";
import { nearest } from "../nearest.ts";
import { AdapterLayer, SharedWork } from "./layer.ts";
import { planAdapter, type AdapterPlan, type FactorPlan, type SitePlan } from "./plan.ts";
import { type Formulas, tokenFormulas } from "./tokens.ts";
import { ALL_MODULES, parameterInfos, type ReplacedPlan } from "./overlay.ts";
import type { Site } from "./sites.ts";

const SETS = new WeakMap<nn.Module, AdapterSet<Adapter>>();

/** The adapters of `model`: always the same object. */
export function adaptersOf(model: nn.Module): AdapterSet<Adapter> {
  if (!(model instanceof nn.Module))
    refuse("adapter", model, "model", "one, e.g. loadPretrained(directory).model");
  let set = SETS.get(model);
  if (set === undefined) SETS.set(model, (set = new AdapterSet<Adapter>(model)));
  return set;
}

/** How an adapter is made and attached. */
export interface AdaptOptions {
  /** The seed of all random start values, and of dropout. Default: 0. */
  readonly seed?: number;
  /** The adapter's name. One model can have several adapters, of different names. Default: "default". */
  readonly name?: string;
  /** Whether the adapter takes part when the model runs. Default: true. */
  readonly active?: boolean;
  /** Whether to replace the adapter of the same name, if there is one; the model itself stays unchanged. Default: false. */
  readonly replace?: boolean;
}

/**
 * Puts a new adapter of `method` on `model`, and freezes the model's own weights. Before the first step the model's outputs are
 * those without the adapter (for methods that follow the zero-start rule). Asynchronous for methods whose start values depend on
 * the frozen weights (DoRA, LoRA-XS).
 *
 * Throws if no module matches the method's target, or if the model already has an adapter of this name; the model is then
 * unchanged.
 */
export function adapt(model: nn.Module, method: PreparedMethod, options?: AdaptOptions): Promise<Adapter>;
export function adapt(model: nn.Module, method: PlainMethod, options?: AdaptOptions): Adapter;
export function adapt(model: nn.Module, method: Method, options?: AdaptOptions): Adapter | Promise<Adapter>;
export function adapt(
  model: nn.Module,
  method: Method,
  options: AdaptOptions = {},
): Adapter | Promise<Adapter> {
  const names = ["seed", "name", "active", "replace"];
  const { name } = checkOptions("adapt", options, '{ name: "mine", seed: 1 }', names);
  if (name !== undefined && typeof name !== "string") refuse("adapt: name", name, "text", "one");
  if (typeof (method as Method | null | undefined)?.factors !== "object")
    refuse("adapt", method, "method", "one, e.g. methods.lora({ rank: 8 })");
  const adapter = createAdapter(model, method, options);
  if (method.prepare === undefined) return adapter.attach(options);
  return prepareFactors(adapter, method as PreparedMethod).then(() => adapter.attach(options));
}

/** Options for callers that set all values themselves, such as readers of files. */
interface CreateOptions extends AdaptOptions {
  /** Whether all factors start at zero, whatever the method declares: no random values are drawn. Default: false. */
  readonly blank?: boolean;
  /** Called before anything is allocated; may throw. */
  readonly check?: (plan: AdapterPlan) => void;
}

/** Makes an adapter for `model` without attaching it; the model is unchanged. Throws if the model has an adapter of this name. */
export function createAdapter(model: nn.Module, method: Method, options: CreateOptions = {}): Adapter {
  if (options.replace !== true) adaptersOf(model).checkName(options.name ?? "default");
  return new Adapter(model, method, options);
}

/** Selects parameters of an adapter: those for which all given conditions hold. */
export interface FactorSelection {
  /** Names of the method's factors: ["A", "B"]; "saved" and "bias" select the copies of the model's own parameters. */
  readonly factors?: readonly string[];
  /** Layers, counted from 0. A tied factor belongs to all layers that use it, and cannot be selected by only some of them. */
  readonly layers?: readonly number[];
  /** Matches some part of the path of a place that uses the factor, such as "layers.3.self_attn.qkv.u". */
  readonly match?: RegExp;
}

/** One parameter of an adapter: of a factor of the method, or a copy of a parameter of the model. */
interface Entry {
  readonly factor: string;
  /** Its name in files: the first alias. */
  readonly path: string;
  readonly aliases: readonly string[];
  readonly parameter: nn.Parameter;
  /** The parameter's node while it holds the values of the seed, for a factor that files name by its seed; null for others. */
  readonly drawn: Tensor["node"] | null;
}

/** The method that Node's console.log calls. */
const INSPECT = Symbol.for("nodejs.util.inspect.custom");

/** An adapter, attached to its model or detached. Use `adapt` to make one. */
export class Adapter implements AttachedAdapter {
  readonly name: string;
  readonly model: nn.Module;
  readonly method: Method;
  readonly plan: AdapterPlan;
  readonly seed: number;
  /** A factor for all updates of the adapter; 1 leaves them as trained. */
  multiplier = 1;
  /** Whether dropout is on. */
  training = false;
  /** The training step, from which dropout draws its mask: equal steps have equal masks, also when activations are recomputed. */
  step = 0;
  #active: boolean;
  readonly #set: AdapterSet<Adapter>;
  readonly #entries: readonly Entry[];
  readonly #byPlan: ReadonlyMap<FactorPlan | ReplacedPlan, Entry>;
  readonly #layers: readonly (readonly [AdaptableModule, AdapterLayer])[];
  readonly #tokens: readonly (readonly [AdaptableModule, AdapterLayer])[];
  /** The number of trained elements of each parameter that has a mask. */
  readonly #masked = new Map<nn.Parameter, number>();
  #dropout: { readonly step: number; readonly key: Key } | null = null;

  /** Use `adapt`. */
  constructor(
    model: nn.Module,
    method: Method,
    { name = "default", seed = 0, active = true, blank = false, check }: CreateOptions = {},
  ) {
    const set = adaptersOf(model);
    const own = set.ownParameters();
    this.name = name;
    this.model = model;
    this.method = method;
    this.plan = planAdapter(moduleInfos(set.hosts), method, parameterInfos(own));
    if (method.modulesToSave.includes(ALL_MODULES)) checkCopied(model);
    check?.(this.plan);
    this.seed = seed;
    this.#active = active;
    this.#set = set;
    const device = deviceOf(set.hosts, this.plan);
    const spans = spansOf(this.plan.factors);
    this.#byPlan = new Map<FactorPlan | ReplacedPlan, Entry>([
      ...this.plan.factors.map((plan, i) => {
        const drawn = blank && !plan.spec.bySeed ? null : seed;
        return [plan, factorEntry(plan, device, method.name, drawn, spans[i]!)] as const;
      }),
      ...this.plan.replaced.map((plan) => [plan, replacedEntry(plan, own.get(plan.path)!)] as const),
    ]);
    this.#entries = [...this.#byPlan.values()];
    this.#layers = this.plan.sites.flatMap((site) => this.#layersOf(site, set.hosts, method));
    const { tokens } = this.plan;
    this.#tokens = tokens === null ? [] : this.#layersOf(tokens, set.hosts, tokenFormulas(method));
    Object.defineProperty(this, INSPECT, { value: () => this.toString() });
  }

  #layersOf(
    plan: SitePlan,
    hosts: ReadonlyMap<string, AdaptableModule>,
    formulas: Formulas,
  ): [AdaptableModule, AdapterLayer][] {
    const factors = new Map([...plan.factors].map(([name, factor]) => [name, this.#parameterOf(factor)]));
    const work = new SharedWork();
    return plan.site.members.map((member) => [
      hosts.get(member.path)!,
      new AdapterLayer(this, member, plan, factors, work, formulas),
    ]);
  }

  #parameterOf(plan: FactorPlan | ReplacedPlan): nn.Parameter {
    return this.#byPlan.get(plan)!.parameter;
  }

  /** Puts the adapter on the model for which it was made, and freezes the model's weights. */
  attach({ replace = false }: Pick<AdaptOptions, "replace"> = {}): this {
    if (replace && this.#set.has(this.name)) this.#set.swap(this);
    else this.#set.add(this);
    return this;
  }

  /** Takes the adapter off the model, whose outputs are then exactly those without it. */
  detach(): void {
    if (this.#attached) this.#set.delete(this.name);
  }

  get #attached(): boolean {
    return this.#set.has(this.name) && this.#set.get(this.name) === this;
  }

  /** Whether the adapter takes part when the model runs, outside of scopes (`withActive`, `disabled`, …). */
  get active(): boolean {
    return this.#active;
  }
  /** Switches the adapter on or off, from the next forward pass on. */
  set active(active: boolean) {
    if (this.#attached) this.#set.checkSwitch(this, active);
    this.#active = active;
    if (this.#attached) this.#set.sync();
  }

  /** Sets `active` without updating the model; for `AdapterSet`, which updates it afterwards. */
  switch(active: boolean): void {
    this.#active = active;
  }

  get takesPart(): boolean {
    return this.#set.runs(this);
  }

  /** The reason why the adapter has no effect of its own when its model runs now; null if it takes part. */
  get idleReason(): string | null {
    if (this.takesPart && this.#attached) return null;
    if (!this.#attached)
      return "it is not on its model: it was detached, deleted or replaced; attach it again";
    if (this.#set.mergedNames.includes(this.name)) return "it is merged into the weights; unmerge first";
    if (!this.#active) return "it is not active; set its active to true";
    return "a scope has chosen other adapters (withActive, disabled, mixed); await its work first";
  }

  get dropoutKey(): Key | null {
    if (!this.training || this.method.dropout === 0) return null;
    if (this.#dropout?.step !== this.step)
      this.#dropout = { step: this.step, key: key(this.seed).fold("dropout").fold(this.step) };
    return this.#dropout.key;
  }

  /** Turns dropout on or off. Does not freeze or unfreeze parameters: see `freeze`. */
  train(on = true): this {
    this.training = on;
    return this;
  }

  /** Every parameter once, trained or frozen, for an optimizer. */
  parameters(): nn.Parameter[] {
    return this.#entries.map(({ parameter }) => parameter);
  }

  /** The parameters that are trained now. */
  trainableParameters(): nn.Parameter[] {
    return this.parameters().filter((parameter) => parameter.requiresGrad);
  }

  /** Every place with the parameter that it uses; a tied parameter comes once for each of its places. */
  *namedParameters(): IterableIterator<[path: string, parameter: nn.Parameter]> {
    const { sites, tokens } = this.plan;
    for (const { site, factors } of tokens === null ? sites : [...sites, tokens]) {
      for (const [name, factor] of factors) yield [`${site.path}.${name}`, this.#parameterOf(factor)];
    }
    yield* this.replacements();
  }

  /** The trained copies of the model's own parameters, by the path of the parameter that each replaces. */
  *replacements(): IterableIterator<[path: string, parameter: nn.Parameter]> {
    for (const plan of this.plan.replaced)
      for (const path of [plan.path, ...plan.others]) yield [path, this.#parameterOf(plan)];
  }

  /** The places of tied parameters except the first of each: place -> path of the parameter in files. */
  aliases(): Map<string, string> {
    return new Map(
      this.#entries.flatMap(({ path, aliases }) =>
        aliases.slice(1).map((alias): [string, string] => [alias, path]),
      ),
    );
  }

  /** Each parameter once, by its path in files. */
  stateDict(): Map<string, nn.Parameter> {
    return new Map(this.#entries.map(({ path, parameter }) => [path, parameter]));
  }

  /**
   * The paths of the parameters whose values are those of the adapter's seed, for factors that are declared `bySeed`: files name the
   * seed in their place. A parameter that was given other values is not among them.
   */
  get drawn(): ReadonlySet<string> {
    const same = this.#entries.filter(({ drawn, parameter }) => drawn !== null && drawn === parameter.node);
    return new Set(same.map(({ path }) => path));
  }

  /** The parameter that a place such as "model.layers.0.self_attn.qkv.A" uses. Throws if there is no such place. */
  parameter(path: string): nn.Parameter {
    for (const [one, parameter] of this.namedParameters()) if (one === path) return parameter;
    const all = [...this.namedParameters()].map(([one]) => one);
    throw new Error(`no parameter at ${path}; the nearest is ${nearest(path, all) ?? all[0]}`);
  }

  /** The number of elements that are trained now, and of all elements; tied parameters count once, and masked elements as frozen. */
  count(): { trainable: number; total: number } {
    const total = this.parameters().reduce((n, { size }) => n + size, 0);
    return { trainable: this.parameters().reduce((n, one) => n + this.trainedElements(one), 0), total };
  }

  /** The number of elements of one parameter that are trained now: 0 if it is frozen, and those that its mask lets through. */
  trainedElements(parameter: nn.Parameter): number {
    if (!parameter.requiresGrad) return 0;
    return parameter.updateMask === null ? parameter.size : (this.#masked.get(parameter) ?? parameter.size);
  }

  /** Freezes the selected parameters (default: all), at any step of a run: their values then do not change at all. */
  freeze(selection: FactorSelection = {}): this {
    for (const parameter of this.select(selection)) parameter.requiresGrad = false;
    return this;
  }

  /** Trains the selected parameters (default: all) from now on. */
  unfreeze(selection: FactorSelection = {}): this {
    for (const parameter of this.select(selection)) parameter.requiresGrad = true;
    return this;
  }

  /**
   * Trains only some elements of the selected parameters, which must have one shape: the elements where `mask`, row-major, is 1.
   * The values of all other elements do not change at all. Null trains all elements again.
   */
  mask(selection: FactorSelection, mask: TypedArray | readonly number[] | null): this {
    for (const parameter of this.select(selection)) {
      const { device, shape, size, name } = parameter;
      if (mask !== null && mask.length !== size)
        throw new RangeError(
          `the mask of ${name} [${shape.join(", ")}] has ${mask.length} elements; give ${size}, one for each of its elements`,
        );
      parameter.updateMask = mask === null ? null : device!.tensor(Float32Array.from(mask), { shape });
      if (mask === null) this.#masked.delete(parameter);
      else this.#masked.set(parameter, Array.from(mask).filter((one) => one !== 0).length);
    }
    return this;
  }

  /** The selected parameters. Throws if there are none, because a selection without a match would silently have no effect. */
  select(selection: FactorSelection): nn.Parameter[] {
    checkSelection(selection);
    const known = [...new Set([...Object.keys(this.method.factors), ...this.#entries.map((e) => e.factor)])];
    const unknown = selection.factors?.find((name) => !known.includes(name));
    if (unknown !== undefined) {
      throw new Error(
        `${this.method.name} has no factor ${unknown}, only ${known.join(", ")}; a vector that is frozen at one is left ` +
          `out unless the method is declared with keep: ["${unknown}"]`,
      );
    }
    const selected = this.#entries.filter((entry) => isSelected(entry, selection));
    if (selected.length === 0)
      throw new Error(`the selection ${describeSelection(selection)} matches no parameter of the adapter`);
    return selected.map(({ parameter }) => parameter);
  }

  /** The number of trained parameters, and of all parameters of the model and this adapter, as the line that peft prints. */
  trainableSummary(): string {
    const { trainable, total } = this.count();
    const own = new Set(this.#set.ownParameters().values());
    const all = [...own].reduce((sum, { size }) => sum + size, total);
    const show = (n: number): string => n.toLocaleString("en-US");
    const percent = ((100 * trainable) / all).toFixed(4);
    return `trainable params: ${show(trainable)} || all params: ${show(all)} || trainable%: ${percent}`;
  }

  /** Prints `trainableSummary()`, as PEFT does. */
  printTrainableParameters(): void {
    console.log(this.trainableSummary());
  }

  /** Each module on which the adapter acts, with its layer in it: those of `layers`, and an embedding of which it trains rows. */
  *acting(): IterableIterator<[host: AdaptableModule, layer: AdapterLayer]> {
    yield* this.layers();
    for (const [host, layer] of this.#tokens) yield [host, layer];
  }

  /** Each module of the method's target with the adapter's layer in it. */
  *layers(): IterableIterator<[host: AdaptableModule, layer: AdapterLayer]> {
    for (const [host, layer] of this.#layers) yield [host, layer];
  }

  toString(): string {
    const { trainable, total } = this.count();
    return `Adapter(${this.name}: ${this.method.name}, ${this.plan.sites.length} sites, ${trainable} of ${total} trained)`;
  }
}

/** Makes the parameter of a factor, with start values drawn from `seed`; null: zeros. */
function factorEntry(
  plan: FactorPlan,
  device: Device,
  method: string,
  seed: number | null,
  span: Span,
): Entry {
  const { factor, path, aliases, spec, shape } = plan;
  const { dtype = "f32" } = spec.init;
  const size = product(shape);
  const blank = dtype === "i32" ? new Int32Array(size) : new Float32Array(size);
  const start = seed === null ? blank : spec.init.fill(shape, key(seed).fold(path), span);
  const values = checkStart(start, "init", factor, { shape, dtype }, { method, path });
  const parameter = nn.Parameter.from(device, values, shape, dtype, path);
  parameter.requiresGrad = spec.trained;
  return { factor, path, aliases, parameter, drawn: spec.bySeed && seed !== null ? parameter.node : null };
}

/** For each parameter, the number of elements in earlier parameters of the same factor, and in all of them. */
function spansOf(plans: readonly FactorPlan[]): Span[] {
  const totals = new Map<string, number>();
  const offsets = plans.map(({ factor, shape }) => {
    const offset = totals.get(factor) ?? 0;
    totals.set(factor, offset + product(shape));
    return offset;
  });
  return plans.map(({ factor }, i) => ({ offset: offsets[i]!, total: totals.get(factor)! }));
}

/** Makes the copy of a parameter of the model, in f32, on the device. */
function replacedEntry({ factor, path, shape }: ReplacedPlan, own: nn.Parameter): Entry {
  const parameter = nn.constantParameter(shape, 0, own.device!, path);
  assign([[parameter, own.cast("f32")]]);
  return { factor, path, aliases: [path], parameter, drawn: null };
}

/** Throws unless all parameters of a model can be copied and trained. */
function checkCopied(model: nn.Module): void {
  if (streamedModel(model) !== null)
    throw new Error(
      "full fine-tuning trains a copy of all weights, and this model streams them, since they do not fit; train an adapter on it, or load it without stream",
    );
  if (model.parameters().some((one) => one instanceof nn.QuantizedParameter))
    throw new Error(
      "full fine-tuning trains all weights, and those of this model are quantized; train an adapter on them, or load the model without quantize",
    );
}

function deviceOf(hosts: ReadonlyMap<string, AdaptableModule>, plan: AdapterPlan): Device {
  const path = (plan.sites[0] ?? plan.tokens)?.site.members[0]!.path ?? [...hosts.keys()][0]!;
  const { device } = hosts.get(path)!.weight;
  if (device === null) throw new Error(`the weight of ${path} is on no device; load the model first`);
  return device;
}

function checkSelection(selection: FactorSelection): void {
  const names = ["factors", "layers", "match"];
  const { factors, layers, match } = checkOptions("selection", selection, '{ factors: ["A"] }', names);
  if (factors !== undefined && !Array.isArray(factors))
    refuse("selection: factors", factors, "list of names", 'one, e.g. ["A"]');
  if (layers !== undefined && !Array.isArray(layers))
    refuse("selection: layers", layers, "list of layers", "one, e.g. [0, 1]");
  if (match !== undefined && !(match instanceof RegExp))
    refuse("selection: match", match, "regular expression", "one, e.g. /q_proj/");
}

function isSelected(entry: Entry, { factors, layers, match }: FactorSelection): boolean {
  if (factors !== undefined && !factors.includes(entry.factor)) return false;
  if (match !== undefined && !entry.aliases.some((alias) => match.test(alias))) return false;
  if (layers === undefined) return true;
  const own = [...new Set(entry.aliases.map((alias) => layerOf(alias)))];
  const inside = own.filter((layer) => layer !== null && layers.includes(layer));
  if (inside.length > 0 && inside.length < own.length) {
    throw new Error(
      `${entry.factor} is tied over layers ${own.join(", ")} and cannot be selected in layers ${inside.join(", ")} alone; ` +
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

/** The frozen weight of a target [out, in] on the host; the rows of its modules follow one another. */
export async function siteWeight({ model }: Pick<Adapter, "model">, site: Site): Promise<Float32Array> {
  const { hosts } = adaptersOf(model);
  const weight = new Float32Array(site.in * site.out);
  for (const { path, offset } of site.members) {
    const host = hosts.get(path)!;
    weight.set(await withWeights(model, [host.weight], () => weightView(host).data()), offset * site.in);
  }
  return weight;
}

/** Sets start values from the frozen weights, one site after another, so that only one weight is on the host at a time. */
async function prepareFactors(adapter: Adapter, method: PreparedMethod): Promise<void> {
  for (const { site, dims, factors, scale } of adapter.plan.sites) {
    const weight = await siteWeight(adapter, site);
    const context: PrepareContext = {
      site,
      dims,
      scale,
      weight,
      shapeOf: (name) => factors.get(name)!.shape,
    };
    const origin = { method: method.name, path: site.path };
    const values: Readonly<Record<string, unknown>> = checkRecord(await method.prepare(context), origin);
    for (const [name, start] of Object.entries(values)) {
      if (start === undefined) continue;
      const parameter = adapter.parameter(`${site.path}.${name}`);
      parameter.set(checkStart(start, "prepare", name, { shape: parameter.shape }, origin));
    }
  }
}
