/** Training that goes on from an adapter, whoever has trained it: loaded, checked against what is wanted, and made ready. */
import type { Files } from "@tiedlora/core";
import type * as nn from "@tiedlora/nn";
import { createAdapter, type Adapter, type AdaptOptions } from "./adapter/adapter.ts";
import { adaptersOf } from "./adapter/adapter.ts";
import { loadAdapterFiles } from "./files/load.ts";
import { moduleInfos } from "./adapter/modules.ts";
import type { Method } from "./method.ts";
import { type MethodName, methodByName } from "./methods/index.ts";
import { planAdapter } from "./adapter/plan.ts";
import type { Target } from "./adapter/sites.ts";

/** What an adapter must be, where that is given: it cannot be made into another. */
export interface InitExpectation {
  readonly method?: MethodName | undefined;
  readonly rank?: number | undefined;
  readonly alpha?: number | undefined;
  readonly target?: Target | undefined;
}

/** How training starts from an adapter. */
export interface InitOptions extends AdaptOptions {
  /** Anything else is an error, which says both. Default: as the adapter is. */
  readonly expect?: InitExpectation;
  /** Dropout of the training to come. Default: what the adapter was trained with. */
  readonly dropout?: number | undefined;
  /** For adapters of methods that are not in the library: the declaration that it was trained with. */
  readonly method?: Method;
}

/**
 * Puts an adapter from files on a model, to train on from there: of this library, of peft or of mlx-lm. The model answers as with
 * the adapter that was saved, and what was trained is trained. Throws, and leaves the model as it was, where the files cannot be
 * loaded (see `loadAdapterFiles`), or where the adapter is not what `expect` says.
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
    const fresh = createAdapter(model, dropping(loaded.method, options.dropout), { name, seed, active, replace, blank: true }); // prettier-ignore
    for (const [path, parameter] of fresh.stateDict()) {
      const from = loaded.stateDict().get(path)!;
      parameter.set(await from.data());
      parameter.requiresGrad = from.requiresGrad;
    }
    loaded.detach();
    return fresh.attach({ replace });
  } finally {
    loaded.detach();
  }
}

/** A name that no adapter of the model has. */
function spareName(model: nn.Module): string {
  const { names } = adaptersOf(model);
  for (let i = 0; ; i++) if (!names.includes(`init-${i}`)) return `init-${i}`;
}

function dropping(method: Method, dropout = method.dropout): Method {
  const { recipe } = method;
  return { ...method, dropout, recipe: { ...recipe, options: { ...recipe.options, dropout } } };
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
  if (conflicts.length > 0)
    throw new Error(
      `the adapter in ${where} is another than what is given: ${conflicts.join("; ")}. Leave these settings out: they are the adapter's`,
    );
}

/** What an adapter's method and a wanted one are called, the same if they do the same. */
function methodNames(method: Method, wanted: MethodName): [string, string] {
  const { name, scaling } = methodByName(wanted, { rank: method.rank });
  const same = kindOf(method.name) === kindOf(name) && method.scaling === scaling;
  return same ? [wanted, wanted] : [method.scaling === "sqrt-rank" ? `${method.name} (scaled by √rank)` : method.name, wanted]; // prettier-ignore
}

/** LoRA that is scaled otherwise is LoRA; the scaling is compared apart. */
function kindOf(name: string): string {
  return name === "rslora" ? "lora" : name;
}

function placesOf(model: nn.Module, method: Method): string[] {
  const set = adaptersOf(model);
  const parameters = [...set.ownParameters()].map(([path, { shape }]) => ({ path, shape }));
  const { sites } = planAdapter(moduleInfos(set.hosts), { ...method, rankPattern: {}, alphaPattern: {} }, parameters); // prettier-ignore
  return sites.flatMap(({ site }) => site.members.map(({ path }) => path)).sort();
}

function short(paths: string): string {
  const all = paths.split(", ");
  return all.length <= 4 ? paths : `${all.slice(0, 3).join(", ")} and ${all.length - 3} others`;
}
