/** The modules that peft would adapt and save: its matching rules, including their quirks, applied to a model's paths. */
import { FormatError } from "@tiedlora/core";
import type * as nn from "@tiedlora/nn";
import { endsWithName, fullMatch, layerOf } from "../../match.ts";
import type { ParameterInfo } from "../../adapter/overlay.ts";
import { modelTypeOf } from "../../model.ts";
import { resolveSites } from "../../adapter/sites.ts";
import type { LinearInfo } from "../../linear-info.ts";
import type { PeftTargets } from "./config.ts";

/** peft's default targets, for target_modules null, by model_type. */
const DEFAULT_TARGETS: Readonly<Record<string, readonly string[]>> = {
  gpt2: ["c_attn"],
  llama: ["q_proj", "v_proj"],
  mistral: ["q_proj", "v_proj"],
  qwen2: ["q_proj", "v_proj"],
  qwen3: ["q_proj", "v_proj"],
  gemma2: ["q_proj", "v_proj"],
  gemma3_text: ["q_proj", "v_proj"],
};

/** The paths of the modules that are adapted. Throws FormatError if there are none. */
export function targetPaths(
  model: nn.Module,
  linears: readonly LinearInfo[],
  targets: PeftTargets,
  file: string,
): string[] {
  const names = targets.modules ?? defaultTargets(model);
  const fail = (found: string, hint?: string): never => {
    throw new FormatError({ file, tensor: "target_modules", found, expected: "modules of this model", hint });
  };
  if (names === null) return fail("null, and no default for this architecture");
  const found = linears
    .map(({ path }) => path)
    .filter((path) => !excluded(path, targets) && matches(path, names, targets, linears));
  if (found.length > 0) return found;
  return fail(
    `${Array.isArray(names) ? JSON.stringify(names) : "a pattern"}, which matches none`,
    "Is this the base model that the adapter was trained on?",
  );
}

function defaultTargets(model: nn.Module): readonly string[] | null {
  const type = modelTypeOf(model);
  return type !== null && Object.hasOwn(DEFAULT_TARGETS, type) ? DEFAULT_TARGETS[type]! : null;
}

function excluded(path: string, { exclude, modulesToSave }: PeftTargets): boolean {
  const byList = Array.isArray(exclude) && exclude.some((name: string) => endsWithName(path, name));
  const byPattern = exclude !== null && !Array.isArray(exclude) && fullMatch(path, exclude as never);
  const saved = modulesToSave.some((name) => `.${path}.`.includes(`.${name}.`));
  return byList || byPattern || saved;
}

function matches(
  path: string,
  names: NonNullable<PeftTargets["modules"]>,
  { layers, layersPattern }: PeftTargets,
  linears: readonly LinearInfo[],
): boolean {
  if (names === "all-linear") return resolveSites(linears, "all-linear").some((site) => site.path === path);
  if (!Array.isArray(names)) return fullMatch(path, names as never);
  const list = names as readonly string[];
  if (list.includes(path)) return true; // a whole path matches regardless of `layers`
  if (!list.some((name) => endsWithName(path, name))) return false;
  if (layers === null) return true;
  const patterns = layersPattern.length === 0 ? [undefined] : layersPattern;
  const layer = patterns.map((pattern) => layerOf(path, pattern)).find((one) => one !== null);
  return layer !== undefined && layer !== null && layers.includes(layer);
}

/**
 * The modules that peft copies for `modules_to_save`: all modules whose path ends in one of the names, without regard to dots
 * ("norm" also selects "input_layernorm"). Throws FormatError if a name matches none.
 */
export function savedModules(
  parameters: readonly ParameterInfo[],
  names: readonly string[],
  file: string,
): string[] {
  const modules = new Set(
    parameters.flatMap(({ path }) => {
      const segments = path.split(".");
      return segments.slice(1).map((_, i) => segments.slice(0, i + 1).join("."));
    }),
  );
  const unmatched = names.find((name) => ![...modules].some((path) => path.endsWith(name)));
  if (unmatched !== undefined) {
    throw new FormatError({
      file,
      tensor: "modules_to_save",
      found: `"${unmatched}", which matches none`,
      expected: "modules of this model",
    });
  }
  return [...modules].filter((path) => names.some((name) => path.endsWith(name)));
}

/** The shortest list of names or ends of paths that selects exactly `paths`: last names if they suffice, otherwise whole paths. */
export function shortNames(paths: readonly string[], linears: readonly LinearInfo[]): string[] {
  const wanted = new Set(paths);
  const names = [...new Set(paths.map((path) => path.slice(path.lastIndexOf(".") + 1)))];
  const meant = linears.filter(({ path }) => names.some((name) => endsWithName(path, name)));
  return meant.every(({ path }) => wanted.has(path)) ? names : [...paths];
}
