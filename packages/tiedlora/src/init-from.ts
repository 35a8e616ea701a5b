/** Training that starts from an existing adapter of any origin: the adapter is loaded, checked and made trainable. */
import type { Files } from "@tiedlora/core";
import type * as nn from "@tiedlora/nn";
import { createAdapter, type Adapter, type AdaptOptions } from "./adapter/adapter.ts";
import { adaptersOf } from "./adapter/adapter.ts";
import { loadAdapterFiles } from "./files/load.ts";
import { moduleInfos } from "./adapter/modules.ts";
import { parameterInfos } from "./adapter/overlay.ts";
import type { Method } from "./method.ts";
import { type MethodName, methodByName } from "./methods/index.ts";
import { planAdapter } from "./adapter/plan.ts";
import type { Target } from "./adapter/sites.ts";

/** What an adapter must be; fields that are left out are not checked. A loaded adapter cannot be converted to other settings. */
export interface InitExpectation {
  readonly method?: MethodName | undefined;
  readonly rank?: number | undefined;
  readonly alpha?: number | undefined;
  readonly target?: Target | undefined;
}

/** How training starts from an adapter. */
export interface InitOptions extends AdaptOptions {
  /** Settings that the adapter must have; a difference is an error that names both values. Default: nothing is checked. */
  readonly expect?: InitExpectation;
  /** The dropout probability from now on. Default: the one that the adapter was trained with. */
  readonly dropout?: number | undefined;
  /** The declaration that the adapter was trained with, for a method that is not in the library. */
  readonly method?: Method;
}

/**
 * Puts an adapter from files of this library, of peft or of mlx-lm on a model, to continue its training. The model's outputs are
 * those it has with the saved adapter, and the parameters that were trained before are trained again. Throws, and leaves the
 * model unchanged, if the files cannot be loaded (see `loadAdapterFiles`) or the adapter differs from `expect`.
 */
export async function initFromFiles(
  model: nn.Module,
  files: Files,
  options: InitOptions = {},
): Promise<Adapter> {
  const { name = "default", seed = 0, active = true, replace = false, method } = options;
  if (!replace) adaptersOf(model).checkName(name);
  const loaded = await loadAdapterFiles(model, files, { name: spareName(model), active: false, ...(method && { method }) }); // prettier-ignore
  try {
    checkExpected(loaded, options.expect ?? {}, files.name);
    const ownSeed = loaded.method.seeded ? loaded.seed : seed; // frozen numbers that follow from the seed stay what they are
    const fresh = createAdapter(model, dropping(loaded.method, options.dropout), { name, seed: ownSeed, active, replace, blank: true }); // prettier-ignore
    const { drawn } = loaded;
    for (const [path, parameter] of fresh.stateDict()) {
      const from = loaded.stateDict().get(path)!;
      if (!drawn.has(path)) parameter.set(await from.data());
      parameter.requiresGrad = from.requiresGrad;
    }
    loaded.detach();
    return fresh.attach({ replace });
  } finally {
    loaded.detach();
  }
}

/** Returns a name that no adapter of the model has. */
function spareName(model: nn.Module): string {
  const { names } = adaptersOf(model);
  for (let i = 0; ; i++) if (!names.includes(`init-${i}`)) return `init-${i}`;
}

function dropping(method: Method, dropout = method.dropout): Method {
  const { recipe } = method;
  return { ...method, dropout, recipe: { ...recipe, options: { ...recipe.options, dropout } } };
}

/** Thrown where an adapter that training starts from has other settings than those that are expected. */
export class UnexpectedAdapterError extends Error {
  constructor(where: string, conflicts: readonly string[]) {
    super(
      `the adapter in ${where} does not have the settings that were given: ${conflicts.join("; ")}. Leave them out: training keeps the adapter's`,
    );
    this.name = "UnexpectedAdapterError";
  }
}

function checkExpected({ model, method }: Adapter, expect: InitExpectation, where: string): void {
  const conflicts: string[] = [];
  const differs = (what: string, has: string | number, wanted: string | number): void => {
    if (has !== wanted) conflicts.push(`it has ${what} ${has}, and ${wanted} is given`);
  };
  if (expect.method !== undefined) differs("method", ...methodNames(method, expect.method));
  if (expect.rank !== undefined) differs("rank", method.rank, expect.rank);
  if (expect.alpha !== undefined) differs("alpha", method.alpha, expect.alpha);
  if (expect.target !== undefined) {
    const paths = (target: Target): string => placesOf(model, { ...method, target }).join(", ");
    const [has, wanted] = [paths(method.target), paths(expect.target)];
    if (has !== wanted)
      conflicts.push(`it adapts ${short(has)}, and the target that is given is ${short(wanted)}`);
  }
  if (conflicts.length > 0) throw new UnexpectedAdapterError(where, conflicts);
}

/** The names of an adapter's method and of a wanted one; twice the same name if the two methods compute the same. */
function methodNames(method: Method, wanted: MethodName): [string, string] {
  const { name, scaling } = methodByName(wanted, { rank: method.rank });
  const same = kindOf(method.name) === kindOf(name) && method.scaling === scaling;
  return same ? [wanted, wanted] : [method.scaling === "sqrt-rank" ? `${method.name} (scaled by √rank)` : method.name, wanted]; // prettier-ignore
}

/** The kind of a method, without regard to its scaling, which is compared separately: rslora is lora. */
function kindOf(name: string): string {
  return name === "rslora" ? "lora" : name;
}

function placesOf(model: nn.Module, method: Method): string[] {
  const set = adaptersOf(model);
  const { sites } = planAdapter(moduleInfos(set.hosts), { ...method, rankPattern: {}, alphaPattern: {} }, parameterInfos(set.ownParameters())); // prettier-ignore
  return sites.flatMap(({ site }) => site.members.map(({ path }) => path)).sort();
}

function short(paths: string): string {
  const all = paths.split(", ");
  return all.length <= 4 ? paths : `${all.slice(0, 3).join(", ")} and ${all.length - 3} others`;
}
