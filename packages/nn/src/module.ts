/** Modules: plain classes whose fields hold parameters and other modules; identity decides what is tied. */
import { Parameter } from "@tiedlora/core";
import { checkNumbers, refuse } from "@tiedlora/core/extend";

/** Which parameters: all, those whose path matches, or those a function picks. */
export type Match = RegExp | ((path: string, parameter: Parameter) => boolean);

const join = (prefix: string, key: string): string => (prefix === "" ? key : `${prefix}.${key}`);

function* children(value: unknown, path: string): Iterable<[string, Module | Parameter]> {
  if (value instanceof Module || value instanceof Parameter) yield [path, value];
  else if (Array.isArray(value))
    for (const [i, item] of value.entries()) yield* children(item, join(path, String(i)));
}

/**
 * Base class of networks. Parameters are found by walking the fields in order: a Parameter, a Module, or arrays of
 * them. A parameter that occurs twice is tied: one object, several paths.
 */
export abstract class Module {
  /** Whether dropout and its like are on. Independent of what is frozen. */
  training = false;

  #children(prefix: string): [string, Module | Parameter][] {
    return Object.entries(this).flatMap(([key, value]) => [...children(value, join(prefix, key))]);
  }

  /** Every path to every parameter, aliases of tied ones included. */
  *namedParameters(prefix = ""): Iterable<[path: string, parameter: Parameter]> {
    for (const [path, child] of this.#children(prefix)) {
      if (child instanceof Parameter) yield [path, child];
      else yield* child.namedParameters(path);
    }
  }

  /** Each parameter once. One that has no more than a layer's name for itself ("weight") is named by its path: errors say which. */
  parameters(): Parameter[] {
    for (const [parameter, path] of this.#firstPaths()) {
      const { name } = parameter;
      if (name === "parameter" || path.endsWith(`.${name}`)) parameter.name = path;
    }
    return [...this.#firstPaths().keys()];
  }

  /** This module (path "") and all below it. */
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

  /** What a file stores: each parameter once, under its first path. */
  stateDict(): Map<string, Parameter> {
    return new Map([...this.#firstPaths()].map(([parameter, path]) => [path, parameter]));
  }

  /** For tied parameters: each further path, and the first path of the same parameter. */
  aliases(): Map<string, string> {
    const first = this.#firstPaths();
    const paths = [...this.namedParameters()].map(([path, p]): [string, string] => [path, first.get(p)!]);
    return new Map(paths.filter(([path, same]) => path !== same));
  }

  /** Replaces the values of all parameters; strict: nothing may be missing, unexpected or of another size. */
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
      // search begins at the start, whatever a global expression remembers
      const picked =
        match === undefined || (match instanceof RegExp ? path.search(match) >= 0 : match(path, parameter));
      if (picked) parameter.requiresGrad = value;
    }
    return this;
  }

  /** Stops training of the parameters that match (all, by default). */
  freeze(match?: Match): this {
    return this.#setRequiresGrad(match, false);
  }

  /** Resumes training of the parameters that match (all, by default). */
  unfreeze(match?: Match): this {
    return this.#setRequiresGrad(match, true);
  }

  /** Turns dropout and its like on or off, here and below. */
  train(on = true): this {
    if (typeof on !== "boolean") refuse("train", on, "truth value", "true or false");
    for (const [, module] of this.namedModules()) module.training = on;
    return this;
  }
}
