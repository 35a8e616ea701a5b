/** Modules: plain classes whose fields hold parameters and other modules. Paths to the same Parameter object are tied. */
import { Parameter } from "@tiedlora/core";
import { checkNumbers, refuse } from "@tiedlora/core/extend";
import { QuantizedParameter } from "./quantized.ts";

/** A choice of parameters: those whose path matches a regular expression, or those for which a function returns true. */
export type Match = RegExp | ((path: string, parameter: Parameter) => boolean);

const join = (prefix: string, key: string): string => (prefix === "" ? key : `${prefix}.${key}`);

function* children(value: unknown, path: string): Iterable<[string, Module | Parameter]> {
  if (value instanceof Module || value instanceof Parameter) yield [path, value];
  else if (Array.isArray(value))
    for (const [i, item] of value.entries()) yield* children(item, join(path, String(i)));
}

/**
 * Base class of networks. Parameters are found by walking the fields in order; a field can hold a Parameter, a Module, or
 * (nested) arrays of them. A parameter that occurs more than once is tied: one object with several paths.
 */
export abstract class Module {
  /** Whether layers that differ in training, e.g. dropout, are in training mode. Independent of which parameters are frozen. */
  training = false;

  #children(prefix: string): [string, Module | Parameter][] {
    return Object.entries(this).flatMap(([key, value]) => [...children(value, join(prefix, key))]);
  }

  /** Every path to every parameter, including all paths of a tied parameter. */
  *namedParameters(prefix = ""): Iterable<[path: string, parameter: Parameter]> {
    for (const [path, child] of this.#children(prefix)) {
      if (child instanceof Parameter) yield [path, child];
      else yield* child.namedParameters(path);
    }
  }

  /**
   * Each parameter once. Sets the `name` of a parameter to its first path if the name is "parameter" or only the end of that path
   * (e.g. "weight"), so that error messages identify it.
   */
  parameters(): Parameter[] {
    for (const [parameter, path] of this.#firstPaths()) {
      const { name } = parameter;
      if (name === "parameter" || path.endsWith(`.${name}`)) parameter.name = path;
    }
    return [...this.#firstPaths().keys()];
  }

  /** This module (its path is `prefix`, "" by default) and all modules below it. */
  *namedModules(prefix = ""): Iterable<[path: string, module: Module]> {
    yield [prefix, this];
    for (const [path, child] of this.#children(prefix)) {
      if (child instanceof Module) yield* child.namedModules(path);
    }
  }

  /** Each parameter with its first path. */
  #firstPaths(): Map<Parameter, string> {
    const paths = new Map<Parameter, string>();
    for (const [path, parameter] of this.namedParameters())
      if (!paths.has(parameter)) paths.set(parameter, path);
    return paths;
  }

  /** The parameters as a file stores them: each once, under its first path. */
  stateDict(): Map<string, Parameter> {
    return new Map([...this.#firstPaths()].map(([parameter, path]) => [path, parameter]));
  }

  /** Maps each further path of a tied parameter to the parameter's first path. */
  aliases(): Map<string, string> {
    const first = this.#firstPaths();
    const paths = [...this.namedParameters()].map(([path, p]): [string, string] => [path, first.get(p)!]);
    return new Map(paths.filter(([path, same]) => path !== same));
  }

  /**
   * Replaces the values of all parameters, given by first path. Throws RangeError, before it changes any, if a path is missing or
   * unexpected or has the wrong number of values.
   */
  loadStateDict(values: ReadonlyMap<string, ArrayLike<number>>): void {
    const given: unknown = values;
    if (!(given instanceof Map))
      refuse("loadStateDict", given, "Map", "one from paths to values, as stateDict() gives");
    const own = this.stateDict();
    const missing = [...own.keys()].filter((path) => !values.has(path));
    const unexpected = [...values.keys()].filter((path) => !own.has(path));
    const wrong = [...own].filter(([path, p]) => values.has(path) && values.get(path)!.length !== p.size);
    if (missing.length + unexpected.length + wrong.length > 0) {
      const sizes = wrong.map(([path, p]) => `${path} (${values.get(path)!.length} values for ${p.size})`);
      throw new RangeError(
        `loadStateDict: missing [${missing.join(", ")}], unexpected [${unexpected.join(", ")}], wrong size [${sizes.join(", ")}]`,
      );
    }
    const packed = [...own].filter(([, p]) => p instanceof QuantizedParameter).map(([path]) => path);
    if (packed.length > 0) {
      throw new Error(
        `loadStateDict: [${packed.join(", ")}] are quantized and keep their values; put parameters in their place, or load into a model whose weights are not quantized`,
      );
    }
    for (const path of own.keys()) checkNumbers(`loadStateDict: ${path}`, values.get(path)!);
    for (const [path, parameter] of own) parameter.set(Array.from(values.get(path)!));
  }

  #setRequiresGrad(match: Match | undefined, value: boolean): this {
    if (match !== undefined && !(match instanceof RegExp) && typeof match !== "function")
      refuse(
        value ? "unfreeze" : "freeze",
        match,
        "choice of parameters",
        "a regular expression or a function of the path",
      );
    for (const [path, parameter] of this.namedParameters()) {
      // `search` starts at index 0 even for a global expression, whose `test` would start at lastIndex.
      const picked =
        match === undefined || (match instanceof RegExp ? path.search(match) >= 0 : match(path, parameter));
      if (picked) parameter.requiresGrad = value;
    }
    return this;
  }

  /** Excludes the parameters that match (default: all) from training. */
  freeze(match?: Match): this {
    return this.#setRequiresGrad(match, false);
  }

  /** Includes the parameters that match (default: all) in training again. */
  unfreeze(match?: Match): this {
    return this.#setRequiresGrad(match, true);
  }

  /** Sets `training`, which e.g. turns dropout on or off, for this module and all modules below it. */
  train(on = true): this {
    if (typeof on !== "boolean") refuse("train", on, "truth value", "true or false");
    for (const [, module] of this.namedModules()) module.training = on;
    return this;
  }
}
