/**
 * The layout of an adapter, computed from the names and sizes of a model's modules alone: which factors exist, how large they are,
 * and which modules share them. Counting needs no more than this; `adapt` adds the values.
 */
import { isRecord, product, type Shape } from "@tiedlora/core";
import { refuse } from "@tiedlora/core/arguments";
import { commonDivisor } from "../linalg/mixture.ts";
import { init } from "../init.ts";
import { patternMatcher, patternValue, splitPath } from "../match.ts";
import { SCALINGS, type Dim, type Dims, type Factor, type Method, type Tie } from "../method.ts";
import { INPUT_EMBEDDINGS } from "../methods/input-embedding.ts";
import { PatternWork } from "../regex/pattern.ts";
import { ALL_MODULES, isSaved, planReplaced, type ParameterInfo, type ReplacedPlan } from "./overlay.ts";
import { resolveSites, type Site } from "./sites.ts";
import { TOKENS } from "./tokens.ts";
import type { LinearInfo } from "../linear-info.ts";

/** One parameter of an adapter. */
export interface FactorPlan {
  /** The factor's name in the method: "A". */
  readonly factor: string;
  readonly spec: Factor;
  readonly shape: Shape;
  /** The parameter's name in files: the first of `aliases`. */
  readonly path: string;
  /** The places that use it, in the order of the model: site path + "." + factor. A tied parameter has more than one. */
  readonly aliases: readonly string[];
  readonly sites: readonly Site[];
}

/** One adapted place, and the parameters that it uses. */
export interface SitePlan {
  readonly site: Site;
  readonly dims: Dims;
  readonly alpha: number;
  readonly scale: number;
  /** The index of the layer among the adapted layers, and of the type among the adapted types: see `Place`. */
  readonly layer: number;
  readonly type: number;
  /** The parameters by factor name, in the order of the declaration. */
  readonly factors: ReadonlyMap<string, FactorPlan>;
}

/** All parts of an adapter, known from shapes alone. */
export interface AdapterPlan {
  readonly sites: readonly SitePlan[];
  /** Each parameter once. */
  readonly factors: readonly FactorPlan[];
  /** Copies of the model's own parameters that are trained in their place. */
  readonly replaced: readonly ReplacedPlan[];
  /** The input embedding, if rows of it are trained beside the sites; its parameter is among `factors`. */
  readonly tokens: SitePlan | null;
}

/**
 * Plans an adapter of `method` for a model's linears and embeddings. `parameters`: all parameters of the model, needed for methods
 * with `modulesToSave` or `bias`. Throws if no module matches, or if modules that share a factor differ in size.
 */
export function planAdapter(
  linears: readonly LinearInfo[],
  method: Method,
  parameters?: readonly ParameterInfo[],
): AdapterPlan {
  checkPlanned("planAdapter", linears, method);
  const open = linears.filter(
    ({ path, kind }) =>
      (kind === undefined || kind === "linear" || kind === "embedding" || kind === "norm") &&
      !isSaved(path, method.modulesToSave),
  );
  const copies = Object.keys(method.factors).length === 0 && method.modulesToSave.length > 0;
  const whole = method.modulesToSave.includes(ALL_MODULES);
  const sites = copies || whole ? [] : resolveSites(open, method.target); // copies alone need no sites
  checkNorms(sites, method);
  checkPatterns(sites, method);
  const layers = [...new Set(sites.map((site) => site.layer))];
  const types = [...new Set(sites.map((site) => site.type))];
  const divisor = sites.flatMap((site) => [site.in, site.out]).reduce(commonDivisor, 0);
  const placed = sites.map((site): Placed => {
    const rank = patternValue(site.path, method.rankPattern) ?? method.rank;
    const alpha = patternValue(site.path, method.alphaPattern) ?? method.alpha;
    const dims = { in: site.in, out: site.out, rank, layers: layers.length, types: types.length, divisor };
    const [layer, type] = [layers.indexOf(site.layer), types.indexOf(site.type)];
    return { site, dims, alpha, scale: SCALINGS[method.scaling](alpha, rank), layer, type };
  });
  const names = Object.keys(method.factors);
  const byFactor = new Map(
    Object.entries(method.factors).map(([name, spec]) => [name, planFactor(name, spec, placed)]),
  );
  const planned = placed.map((one): SitePlan => {
    const factors = names.flatMap((name): [string, FactorPlan][] => {
      const plan = byFactor.get(name)!.get(one.site);
      return plan === undefined ? [] : [[name, plan]];
    });
    return { ...one, factors: new Map(factors) };
  });
  const tokens = planTokens(open, method, planned);
  const every = tokens === null ? planned : [...planned, tokens];
  const factors = [...new Set(every.flatMap((site) => [...site.factors.values()]))];
  return { sites: planned, factors, replaced: replacedBy(method, sites, parameters), tokens };
}

/** Plans the rows for a model with these modules; null if the method trains none. Throws if the model has no such rows. */
function planTokens(
  modules: readonly LinearInfo[],
  { name, trainedTokens, factors }: Method,
  sites: readonly SitePlan[],
): SitePlan | null {
  if (trainedTokens.length === 0) return null;
  const found = modules.find(({ path, kind }) => kind === "embedding" && INPUT_EMBEDDINGS.includes(splitPath(path)[1])); // prettier-ignore
  if (found === undefined)
    throw new Error(
      `${name}: trainedTokens is given, and the model has no input embedding (${INPUT_EMBEDDINGS.join(", ")}) that could be adapted; leave it out`,
    );
  const { path, in: rows, out } = found;
  const beyond = trainedTokens.find((id) => id >= rows);
  if (beyond !== undefined)
    throw new RangeError(
      `${name}: trainedTokens has ${beyond}, and ${path} has ${rows} rows; give ids below ${rows}`,
    );
  if (TOKENS in factors || sites.some(({ site }) => site.members.some((one) => one.path === path)))
    throw new Error(
      `${name}: trainedTokens is given, and the method's own target has ${path} too; leave one of them out`,
    );
  const spec: Factor = {
    shape: ["out", trainedTokens.length],
    init: init.zeros(),
    tie: "none",
    trained: true,
    rate: 1,
    bySeed: false,
  };
  const site = { path, type: path, layer: null, in: rows, out, members: [{ ...found, offset: 0 }] };
  const dims = { in: rows, out, rank: trainedTokens.length, layers: 1, types: 1, divisor: 1 };
  const at = `${path}.${TOKENS}`;
  const plan: FactorPlan = { factor: TOKENS, spec, shape: [out, trainedTokens.length], path: at, aliases: [at], sites: [site] }; // prettier-ignore
  const planned = new Map([[TOKENS, plan]]);
  return { site, dims, alpha: dims.rank, scale: 1, layer: 0, type: 0, factors: planned };
}

function replacedBy(
  method: Method,
  sites: readonly Site[],
  parameters: readonly ParameterInfo[] | undefined,
): ReplacedPlan[] {
  if (method.modulesToSave.length === 0 && method.bias === "none") return [];
  if (parameters === undefined) {
    throw new Error(
      `${method.name} replaces parameters of the model (modulesToSave, bias): give their paths and shapes too`,
    );
  }
  return planReplaced(parameters, sites, method);
}

/** The number of elements that `method` trains on a model with these modules, and of all elements of its adapter. */
export function countParameters(
  linears: readonly LinearInfo[],
  method: Method,
  parameters?: readonly ParameterInfo[],
): { readonly trainable: number; readonly total: number } {
  checkPlanned("countParameters", linears, method);
  const { factors, replaced } = planAdapter(linears, method, parameters);
  const sum = (plans: readonly { readonly shape: Shape }[]): number =>
    plans.reduce((n, plan) => n + product(plan.shape), 0);
  const trained = factors.filter((plan) => plan.spec.trained);
  return { trainable: sum([...trained, ...replaced]), total: sum([...factors, ...replaced]) };
}

/** Throws unless `linears` are descriptions of modules and `method` is a method. */
function checkPlanned(what: string, linears: readonly LinearInfo[], method: Method): void {
  const isModule = (one: LinearInfo | null | undefined): boolean =>
    typeof one?.path === "string" && Number.isSafeInteger(one.in) && Number.isSafeInteger(one.out);
  if (!Array.isArray(linears))
    refuse(what, linears, "list of modules", "e.g. linearSpecs(config), or [{ path, in, out }]");
  const odd: number = linears.findIndex((one: LinearInfo) => !isModule(one));
  if (odd >= 0) refuse(`${what}: module ${odd}`, linears[odd], "module", "{ path, in, out }");
  if (!isRecord(method) || !isRecord(method.factors) || method.target === undefined)
    refuse(what, method, "method", "one, e.g. methods.lora({ rank: 8 })");
}

type Placed = Omit<SitePlan, "factors">;

/** Groups the sites that share the factor, and plans one parameter for each group. */
function planFactor(factor: string, spec: Factor, places: readonly Placed[]): Map<Site, FactorPlan> {
  const groups = new Map<string, Placed[]>();
  for (const place of places.filter(({ site }) => spec.on?.(site) ?? true)) {
    const key = tieKey(spec.tie, place.site, shapeOf(spec, place.dims));
    const group = groups.get(key);
    if (group) group.push(place);
    else groups.set(key, [place]);
  }
  const plans = new Map<Site, FactorPlan>();
  for (const group of groups.values()) {
    const aliases = group.map(({ site }) => `${site.path}.${factor}`);
    const sites = group.map(({ site }) => site);
    const plan = { factor, spec, shape: commonShape(factor, spec, group), path: aliases[0]!, aliases, sites };
    for (const site of sites) plans.set(site, plan);
  }
  return plans;
}

/** The key of a site under a tie: sites with the same key share the factor. */
function tieKey(tie: Tie, site: Site, shape: Shape): string {
  if (typeof tie === "function") return tie(site);
  if (typeof tie === "object" && "groups" in tie) {
    const group = tie.groups.findIndex((paths) => paths.includes(site.path));
    return group < 0 ? site.path : String(group);
  }
  if (typeof tie === "object") {
    if (!Number.isInteger(tie.blocks) || tie.blocks < 1)
      throw new RangeError(`tie in blocks of ${tie.blocks} layers given; expected an integer of at least 1`);
    return `${site.type} ${site.layer === null ? "" : Math.floor(site.layer / tie.blocks)}`;
  }
  switch (tie) {
    case "none":
      return site.path;
    case "all":
      return site.type;
    case "layer":
      return `${site.layer ?? site.path} ${shape.join("x")}`;
    case "shape":
      return shape.join("x");
    case "model":
      return "";
  }
}

function shapeOf(spec: Factor, dims: Dims): Shape {
  return spec.shape.map((dim) => sizeOf(dim, dims));
}

/** The size of an axis at one site. */
export function sizeOf(dim: Dim, dims: Dims): number {
  const size = typeof dim === "number" ? dim : typeof dim === "function" ? dim(dims) : dims[dim];
  if (!Number.isInteger(size) || size < 1) {
    const given = `in ${dims.in}, out ${dims.out}, rank ${dims.rank}`;
    throw new RangeError(`a factor would have an axis of ${size}; expected a positive integer (${given})`);
  }
  return size;
}

/**
 * The shape of the parameter that a group shares. If the modules differ in size, its `in` and `out` axes, and those that a function
 * computes, are as large as the largest module needs, and each module uses the leading part (VeRA's rule). This throws unless the tie crosses types of modules.
 */
function commonShape(factor: string, spec: Factor, group: readonly Placed[]): Shape {
  const shapes = group.map(({ dims }) => shapeOf(spec, dims));
  return spec.shape.map((dim, axis) => {
    const sizes = shapes.map((shape) => shape[axis]!);
    const largest = Math.max(...sizes);
    const different = sizes.findIndex((size) => size !== largest);
    const mayDiffer = crossesSizes(spec.tie) && (dim === "in" || dim === "out" || typeof dim === "function");
    if (different >= 0 && !mayDiffer) {
      const one = group[different]!.site.path;
      const other = group[sizes.indexOf(largest)]!.site.path;
      throw new Error(
        `${factor} cannot be shared by ${one} and ${other}: it would have shape [${shapes[different]!.join(", ")}] in one and ` +
          `[${shapes[sizes.indexOf(largest)]!.join(", ")}] in the other; tie it by "shape", or adapt fewer modules`,
      );
    }
    return largest;
  });
}

function crossesSizes(tie: Tie): boolean {
  return tie === "model" || typeof tie === "function" || (typeof tie === "object" && "groups" in tie);
}

/** Throws if a method that puts something in front of a sequence is to adapt a norm, where it would have no effect. */
function checkNorms(sites: readonly Site[], method: Method): void {
  const isInFront = method.prefix !== undefined || method.prompt !== undefined;
  const norm = isInFront ? sites.find(({ members }) => members[0]!.kind === "norm") : undefined;
  if (norm === undefined) return;
  const { name } = method;
  const target = method.prompt ? "the input embedding" : "the linears that make keys and values";
  throw new Error(`${name}: ${norm.path} is a norm, where this method has no effect; give ${target} as the target, or leave the target out`); // prettier-ignore
}

/** Throws if a pattern matches no adapted module, because it would silently have no effect. */
function checkPatterns(sites: readonly Site[], method: Method): void {
  for (const [name, patterns] of Object.entries({
    rankPattern: method.rankPattern,
    alphaPattern: method.alphaPattern,
  })) {
    const work = new PatternWork();
    for (const key of Object.keys(patterns)) {
      const matches = patternMatcher(key, work);
      if (!sites.some((site) => matches(site.path))) {
        throw new Error(
          `${name} ${JSON.stringify(key)} matches none of the adapted modules (${sites[0]?.path ?? "none"}, ...)`,
        );
      }
    }
  }
}
