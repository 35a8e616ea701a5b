/**
 * Numbers for single parameters of an adapter, such as factors of the learning rate: by factor, by module, or by pattern. It is not
 * about how a rate changes over time, which is a schedule's.
 */
import { isRecord, type Parameter } from "@tiedlora/core";
import { describeArgument, refuse } from "@tiedlora/core/arguments";
import type { Adapter } from "../adapter/adapter.ts";
import { patternMatcher, splitPath } from "../match.ts";
import { suggestion } from "../nearest.ts";
import { PatternWork } from "../regex/pattern.ts";

/**
 * A number by the name of a factor ("B"), of a module ("q_proj"), of a module's factor ("q_proj.B"), or of what contains modules
 * ("layers.0"), or by a regular expression that must match such a path or its end, as a key of PEFT's rank_pattern. The first key
 * that matches a parameter applies. "saved" and "bias" are the copies of the model's own parameters.
 */
export type ByParameter = Readonly<Record<string, number>>;

/** One parameter of an adapter, and the places that use it. */
interface Placed {
  readonly parameter: Parameter;
  /** The name of the factor; "saved" or "bias" for a copy of a parameter of the model. */
  readonly factor: string;
  readonly places: readonly string[];
}

/**
 * The number of each parameter; undefined for those that no key matches. `what` names the setting in errors. Throws if a number is
 * negative or not finite, if a key matches no trained parameter, or only some of the places of a tied one.
 */
export function numbersByParameter(
  adapter: Adapter,
  what: string,
  numbers: ByParameter,
): (parameter: Parameter) => number | undefined {
  if (!isRecord(numbers)) refuse(what, numbers, "numbers by factor or module", "e.g. { B: 16, q_proj: 0.5 }");
  const all = placedParameters(adapter);
  const found = new Map<Parameter, number>();
  const work = new PatternWork();
  for (const [key, value] of Object.entries(numbers)) {
    if (typeof value !== "number" || !Number.isFinite(value) || value < 0)
      throw new RangeError(
        `${what}: ${describeArgument(value)} for "${key}"; give a finite number, not negative`,
      );
    const matches = patternMatcher(key, work);
    const selected = all.filter((one) => isSelected(one, key, matches, what));
    if (selected.length === 0)
      throw new Error(`${what}: "${key}" matches no parameter of the adapter; ${hint(key, namesOf(all))}`);
    if (!selected.some(({ parameter }) => parameter.requiresGrad))
      throw new Error(
        `${what}: "${key}" matches frozen parameters alone (${selected[0]!.places[0]}, …); name one that is trained, or unfreeze it first`,
      );
    for (const { parameter } of selected) if (!found.has(parameter)) found.set(parameter, value);
  }
  return (parameter) => found.get(parameter);
}

function placedParameters(adapter: Adapter): Placed[] {
  const { factors, replaced } = adapter.plan;
  const state = adapter.stateDict();
  const placed = (factor: string, path: string, places: readonly string[]): Placed => ({
    parameter: state.get(path)!,
    factor,
    places,
  });
  return [
    ...factors.map(({ factor, path, aliases }) => placed(factor, path, aliases)),
    ...replaced.map(({ factor, path, others }) => placed(factor, path, [path, ...others])),
  ];
}

function isSelected(
  { factor, places }: Placed,
  key: string,
  matches: (path: string) => boolean,
  what: string,
): boolean {
  if (key === factor) return true;
  const inside = places.filter((place) => scopesOf(place).some(matches));
  if (inside.length > 0 && inside.length < places.length)
    throw new Error(
      `${what}: "${key}" matches ${inside[0]} and not ${places.find((place) => !inside.includes(place))}, which are one tied ` +
        `parameter, ${factor}; name the factor, or declare the method with other ties`,
    );
  return inside.length > 0;
}

/** The path of a parameter, and of all that contains it. */
function scopesOf(path: string): string[] {
  const segments = path.split(".");
  return segments.map((_, i) => segments.slice(0, i + 1).join("."));
}

/** The names that an error suggests: factors and modules. */
function namesOf(all: readonly Placed[]): string[] {
  const modules = all.flatMap(({ places }) => places.map((place) => splitPath(splitPath(place)[0])[1]));
  return [...new Set([...all.map(({ factor }) => factor), ...modules])];
}

/** The name that was probably meant; a short one, such as a factor's, is near to too many others. */
function hint(key: string, names: readonly string[]): string {
  return key.length > 3 ? suggestion(key, names) : `there are ${names.join(", ")}`;
}
