/** Sites: the places of a model that are adapted. Each is one module, or a group of modules that are adapted as one. */
import {
  endsWithName,
  fullMatch,
  gateUpGroups,
  groupPath,
  layerOf,
  moduleNames,
  qkvGroups,
  splitPath,
  typeOf,
} from "../match.ts";
import { nearest } from "../nearest.ts";
import { isPattern, type Pattern } from "../regex/pattern.ts";
import type { LinearInfo } from "../linear-info.ts";

/** One module of a site; `offset`: its first row among the site's `out` rows. */
export interface Member extends LinearInfo {
  readonly offset: number;
}

/** A place that is adapted: a module, or several that are adapted as one. */
export interface Site {
  /** The module's path; for a group of several modules, the parent's path and "qkv" or "gate_up". */
  readonly path: string;
  /** The path without its layer's number: "model.layers.*.self_attn.qkv". */
  readonly type: string;
  readonly layer: number | null;
  readonly in: number;
  readonly out: number;
  readonly members: readonly Member[];
}

/**
 * Which modules are adapted:
 * - `"qkv"`: queries, keys and values of each attention, as one target (one A; the rows of B are divided among the three);
 * - `"all-linear"`: every linear except the output embedding;
 * - a list of names or ends of paths (PEFT's rule: "attn.c_proj"), in which "qkv" stands for the group, and
 *   "gate_up" for gate and up of each MLP as one target;
 * - a regular expression that must match whole paths. Those from files are `Pattern`s, whose matching time is bounded.
 *
 * Norms are adapted if a list names them, or if an expression matches norms alone.
 */
export type Modules = "qkv" | "all-linear" | readonly string[] | RegExp | Pattern;
/** The target of a method: the modules that it adapts. */
export type Target = Modules | TargetSpec;

/** Modules, narrowed down by names and layers. */
export interface TargetSpec {
  readonly modules: Modules;
  /** Modules that are not adapted, even if `modules` selects them. */
  readonly exclude?: readonly string[] | RegExp | Pattern;
  /** The layers that are adapted, counted from 0. Default: all. */
  readonly layers?: readonly number[];
  /** The name before the layer's number in paths. Default: the layer's number is the first number. */
  readonly layersPattern?: string;
}

const OUTPUT_EMBEDDINGS: readonly string[] = ["lm_head", "embed_out", "score", "classifier"];

/** The sites that `target` selects among `linears`. Throws if there are none, or none in one of the given layers. */
export function resolveSites(linears: readonly LinearInfo[], target: Target): Site[] {
  const spec = isSpec(target) ? target : { modules: target };
  const groups = selectGroups(linears, spec.modules);
  const sites = groups
    .filter((group) => group.every((member) => !isExcluded(member.path, spec.exclude)))
    .map((group) => siteOf(group, spec.layersPattern))
    .filter((site) => spec.layers === undefined || (site.layer !== null && spec.layers.includes(site.layer)));
  if (sites.length === 0) throw new Error(nothingMatched(linears, spec));
  if (spec.layers !== undefined) checkLayers(sites, spec.layers);
  return sites;
}

function isSpec(target: Target): target is TargetSpec {
  return typeof target === "object" && "modules" in target;
}

function selectGroups(linears: readonly LinearInfo[], modules: Modules): (readonly LinearInfo[])[] {
  if (modules === "qkv") return qkvGroups(linears);
  if (modules === "all-linear") return linears.filter(isInnerLinear).map((l) => [l]);
  if (modules instanceof RegExp || isPattern(modules)) {
    const matching = linears.filter(({ path }) => fullMatch(path, modules));
    const others = matching.filter(({ kind }) => kind !== "norm");
    return (others.length > 0 ? others : matching).map((l) => [l]);
  }
  if (typeof modules === "string") {
    throw new Error(
      `target "${String(modules)}" given; expected "qkv", "all-linear", a list of module names such as ["${String(modules)}"], or a regular expression`,
    );
  }
  return selectByNames(linears, modules);
}

function isInnerLinear({ path, kind }: LinearInfo): boolean {
  return kind !== "embedding" && kind !== "norm" && !OUTPUT_EMBEDDINGS.includes(splitPath(path)[1]);
}

function selectByNames(linears: readonly LinearInfo[], names: readonly string[]): (readonly LinearInfo[])[] {
  const qkv = names.includes("qkv") ? qkvGroups(linears) : [];
  const pairs = names.filter((name) => splitPath(name)[1] === "gate_up");
  const gateUp = pairs.length === 0 ? [] : gateUpGroups(linears).filter(isNamed(pairs));
  const grouped = [...qkv, ...gateUp];
  const inGroup = new Set(grouped.flat());
  const found = new Set([
    ...(qkv.length > 0 ? ["qkv"] : []),
    ...pairs.filter((name) => gateUp.some(isNamed([name]))),
  ]);
  const single = names.filter((name) => !found.has(name));
  const missing = single.filter((name) => !linears.some(({ path }) => endsWithName(path, name)));
  if (missing.length > 0) throw new Error(nothingMatched(linears, { modules: missing }));
  const first = new Map(grouped.map((group) => [group[0]!, group]));
  return linears.flatMap((linear): (readonly LinearInfo[])[] => {
    const group = first.get(linear);
    if (group) return [group];
    return !inGroup.has(linear) && single.some((name) => endsWithName(linear.path, name)) ? [[linear]] : [];
  });
}

const isNamed =
  (names: readonly string[]) =>
  (group: readonly LinearInfo[]): boolean =>
    names.some((name) => endsWithName(groupPath(group), name));

function isExcluded(path: string, exclude: TargetSpec["exclude"]): boolean {
  if (exclude === undefined) return false;
  return exclude instanceof RegExp || isPattern(exclude)
    ? fullMatch(path, exclude)
    : exclude.some((name) => endsWithName(path, name));
}

function siteOf(group: readonly LinearInfo[], layersPattern: string | undefined): Site {
  let out = 0;
  const members = group.map((linear): Member => {
    const member = { ...linear, offset: out };
    out += linear.out;
    return member;
  });
  const first = members[0]!;
  const different = members.find((member) => member.in !== first.in);
  if (different !== undefined) {
    throw new Error(
      `${first.path} reads ${first.in} features and ${different.path} ${different.in}: they cannot be adapted as one target`,
    );
  }
  const path = groupPath(members);
  return { path, type: typeOf(path), layer: layerOf(first.path, layersPattern), in: first.in, out, members };
}

function checkLayers(sites: readonly Site[], layers: readonly number[]): void {
  const missing = layers.filter((layer) => !sites.some((site) => site.layer === layer));
  if (missing.length > 0) {
    const there = [...new Set(sites.map((site) => site.layer))];
    throw new Error(
      `no module of the target is in layers ${missing.join(", ")}; leave these out (of the given layers, ${there.join(", ")} have such modules)`,
    );
  }
}

function nothingMatched(linears: readonly LinearInfo[], spec: TargetSpec): string {
  const { modules } = spec;
  const given =
    modules instanceof RegExp
      ? String(modules)
      : isPattern(modules)
        ? `/${modules.source}/`
        : typeof modules === "string"
          ? `"${modules}"`
          : JSON.stringify(modules);
  const limits = spec.exclude !== undefined || spec.layers !== undefined ? " after exclude and layers" : "";
  const names = moduleNames(linears);
  const close = (typeof modules === "string" ? [modules] : Array.isArray(modules) ? modules : [])
    .map((name: string) => nearest(name, names))
    .find((name) => name !== null);
  const hint =
    modules === "qkv"
      ? "; name the modules to adapt, for example target: [...]"
      : close === undefined || limits !== ""
        ? ""
        : `; did you mean ${close}?`;
  return `target ${given} matches no linear module${limits}; the model has ${names.join(", ") || "none"}${hint}`;
}
