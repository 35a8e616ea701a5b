/**
 * Parameters of the model that an adapter replaces by trained copies: those of whole modules (`modulesToSave`), and biases. The
 * model's own parameters are never written; the copies take their place while the adapter is active.
 */
import type { Shape } from "@tiedlora/core";
import type * as nn from "@tiedlora/nn";
import { endsWithName, moduleNames } from "../match.ts";
import type { Method } from "../method.ts";
import type { Site } from "./sites.ts";
import { readSlot, slotsOf, writeSlot, type Slot } from "./modules.ts";

/** A parameter of the model, without its values. */
export interface ParameterInfo {
  readonly path: string;
  readonly shape: Shape;
  /** The first path of the same parameter, for one that has several: an output embedding that is tied. */
  readonly sameAs?: string;
}

/** The name in `modulesToSave` that means all modules. */
export const ALL_MODULES = "*";
/** The name in `modulesToSave` that means all norms: the modules whose weight is a vector. "*norms.ln_1" means those of them that are called ln_1. */
export const ALL_NORMS = "*norms";

/** The parameters of a model without their values. */
export function parameterInfos(own: ReadonlyMap<string, nn.Parameter>): ParameterInfo[] {
  const first = new Map<nn.Parameter, string>();
  return [...own].map(([path, parameter]): ParameterInfo => {
    const sameAs = first.get(parameter);
    if (sameAs === undefined) first.set(parameter, path);
    return { path, shape: parameter.shape, ...(sameAs !== undefined && { sameAs }) };
  });
}

/** A parameter that is replaced: `saved` if its module is in `modulesToSave`, `bias` if the bias mode includes it. */
export interface ReplacedPlan extends ParameterInfo {
  readonly factor: "saved" | "bias";
  /** The other paths of the model's parameter, whose place the copy takes too: if all modules are saved, what was tied stays tied. */
  readonly others: readonly string[];
}

/** Whether the module at `path`, or one that contains it, is named in `modulesToSave`. */
export function isSaved(path: string, modulesToSave: readonly string[]): boolean {
  if (modulesToSave.includes(ALL_MODULES)) return true;
  const segments = path.split(".");
  return segments.some((_, i) => {
    const module = segments.slice(0, i + 1).join(".");
    return modulesToSave.some((name) => endsWithName(module, name));
  });
}

/** Which parameters `method` replaces. Throws if a name in `modulesToSave` matches no module. */
export function planReplaced(
  parameters: readonly ParameterInfo[],
  sites: readonly Site[],
  { modulesToSave, bias }: Method,
): ReplacedPlan[] {
  const norms = namedNorms(parameters, modulesToSave);
  const unmatched = modulesToSave.find(
    (name) => !isNormName(name) && !parameters.some(({ path }) => isSaved(parent(path), [name])),
  );
  if (unmatched !== undefined) {
    const there = moduleNames(parameters.map(({ path }) => ({ path: parent(path), in: 0, out: 0 })));
    throw new Error(`modulesToSave "${unmatched}" matches no module; the model has ${there.join(", ")}`);
  }
  const adapted = new Set(sites.flatMap((site) => site.members.map(({ path }) => `${path}.bias`)));
  const whole = modulesToSave.includes(ALL_MODULES);
  return parameters.flatMap(({ path, shape, sameAs }): ReplacedPlan[] => {
    if (whole && sameAs !== undefined) return [];
    const others = whole ? parameters.filter((one) => one.sameAs === path).map((one) => one.path) : [];
    if (isSaved(parent(path), modulesToSave) || norms.has(parent(path)))
      return [{ path, shape, factor: "saved", others }];
    const meant = bias === "all" || (bias !== "none" && adapted.has(path) === (bias === "adapted"));
    return meant && path.endsWith(".bias") ? [{ path, shape, factor: "bias", others }] : [];
  });
}

const isNormName = (name: string): boolean => name === ALL_NORMS || name.startsWith(`${ALL_NORMS}.`);

/** The paths of the norms that are named. Throws for a name that matches none. */
function namedNorms(parameters: readonly ParameterInfo[], names: readonly string[]): Set<string> {
  const found = new Set<string>();
  for (const name of names.filter(isNormName)) {
    const all = [...normsAmong(parameters)];
    const own = name.slice(ALL_NORMS.length + 1);
    const matching = name === ALL_NORMS ? all : all.filter((path) => endsWithName(path, own));
    if (matching.length === 0)
      throw new Error(
        `"${own}" matches no norm; the model has ${moduleNames(all.map((path) => ({ path, in: 0, out: 0 }))).join(", ") || "none"}`,
      );
    for (const path of matching) found.add(path);
  }
  return found;
}

/** The paths of all norms. */
export function normsAmong(parameters: readonly ParameterInfo[]): Set<string> {
  const vectors = parameters.filter(({ path, shape }) => path.endsWith(".weight") && shape.length === 1);
  return new Set(vectors.map(({ path }) => parent(path)));
}

/** Throws if two of these adapters, which are to be active at once, replace the same parameter. */
export function checkReplaced(
  adapters: Iterable<{
    readonly name: string;
    readonly plan: { readonly replaced: readonly ReplacedPlan[] };
  }>,
): void {
  const owner = new Map<string, string>();
  for (const { name, plan } of adapters) {
    for (const { path } of plan.replaced) {
      const other = owner.get(path);
      if (other !== undefined)
        throw new Error(
          `adapters "${other}" and "${name}" both replace ${path}; only one of them can be active (adapt: { active: false })`,
        );
      owner.set(path, name);
    }
  }
}

function parent(path: string): string {
  return path.slice(0, Math.max(path.lastIndexOf("."), 0));
}

/** Puts other parameters in place of a model's own, and restores the model's own. */
export class Overlay {
  readonly #slots: ReadonlyMap<string, Slot>;
  /** The model's own parameters at the paths where other parameters replace them now. */
  readonly #own: Map<string, nn.Parameter> = new Map<string, nn.Parameter>();

  constructor(model: nn.Module) {
    this.#slots = slotsOf(model);
  }

  /** The model's own parameter at a path. */
  own(path: string): nn.Parameter {
    return this.#own.get(path) ?? readSlot(this.#slots.get(path)!);
  }

  /** Every path with the model's own parameter. */
  *parameters(): IterableIterator<[path: string, parameter: nn.Parameter]> {
    for (const path of this.#slots.keys()) yield [path, this.own(path)];
  }

  /** Puts exactly the parameters in `wanted` in place of the model's own, by path; at all other paths the model's own return. */
  show(wanted: ReadonlyMap<string, nn.Parameter>): void {
    for (const [path, parameter] of this.#own) {
      writeSlot(this.#slots.get(path)!, parameter);
      if (!wanted.has(path)) this.#own.delete(path);
    }
    for (const [path, parameter] of wanted) {
      const slot = this.#slots.get(path)!;
      if (!this.#own.has(path)) this.#own.set(path, readSlot(slot));
      writeSlot(slot, parameter);
    }
  }

  /** Makes the replacing parameters at these paths the model's own. */
  settle(paths: Iterable<string>): void {
    for (const path of paths) this.#own.delete(path);
  }
}
