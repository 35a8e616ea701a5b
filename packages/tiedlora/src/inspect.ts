/** The parts of an adapter as a report, for people and programs. */
import type { Shape } from "@tiedlora/core";
import { refuse } from "@tiedlora/core/arguments";
import { Adapter } from "./adapter/adapter.ts";
import type { AdapterPlan, FactorPlan } from "./adapter/plan.ts";

/** One adapted place, and the parameters that it uses. */
export interface ModuleReport {
  /** The adapted target: a module, or a fused group. */
  readonly path: string;
  /** The paths of its modules. */
  readonly modules: readonly string[];
  readonly in: number;
  readonly out: number;
  readonly rank: number;
  readonly scale: number;
}

/** One parameter, and all the places that use it. */
export interface ParameterReport {
  readonly factor: string;
  /** Its name in files. */
  readonly path: string;
  readonly shape: Shape;
  readonly size: number;
  /** Whether it is trained; with a mask, whether some of it is. */
  readonly trained: boolean;
  /** The number of its elements that are trained: less than `size` if it has a mask. */
  readonly trainedElements: number;
  /** Every place that uses it, the first included; a tied parameter has more than one. */
  readonly aliases: readonly string[];
}

/** All parameters of one factor, counted. */
export interface FactorCount {
  readonly factor: string;
  /** The number of parameters; a tied one counts once. */
  readonly parameters: number;
  /** The number of places that use them: larger than `parameters` if the factor is tied. */
  readonly places: number;
  readonly size: number;
  readonly trained: number;
}

/** The parts of an adapter, as plain data. */
export interface AdapterReport {
  readonly name: string;
  readonly method: string;
  readonly modules: readonly ModuleReport[];
  readonly parameters: readonly ParameterReport[];
  readonly factors: readonly FactorCount[];
  readonly trainable: number;
  readonly total: number;
}

/** Returns every adapted module, every parameter with all its aliases, and counts for each factor. */
export function inspect(adapter: Adapter): AdapterReport {
  if (!(adapter instanceof Adapter)) refuse("inspect", adapter, "adapter", "one, e.g. adapt(model, method)");
  const modules = adapter.plan.sites.map(({ site, dims }, i): ModuleReport => {
    const { path, members } = site;
    const scale = adapter.plan.sites[i]!.scale * adapter.multiplier;
    return {
      path,
      modules: members.map((one) => one.path),
      in: site.in,
      out: site.out,
      rank: dims.rank,
      scale,
    };
  });
  const named = adapter.stateDict();
  const parameters = [...adapter.plan.factors, ...adapter.plan.replaced].map((plan): ParameterReport => {
    const { path, factor, shape } = plan;
    const parameter = named.get(path)!;
    const aliases = "aliases" in plan ? plan.aliases : [path, ...plan.others];
    const trainedElements = adapter.trainedElements(parameter);
    return {
      factor,
      path,
      shape,
      size: parameter.size,
      trained: trainedElements > 0,
      trainedElements,
      aliases,
    };
  });
  const factors = [...new Set(parameters.map(({ factor }) => factor))].map((factor): FactorCount => {
    const own = parameters.filter((one) => one.factor === factor);
    const sum = (of: (one: ParameterReport) => number): number => own.reduce((n, one) => n + of(one), 0);
    const [places, size] = [sum(({ aliases }) => aliases.length), sum((one) => one.size)];
    const trained = sum((one) => one.trainedElements);
    return { factor, parameters: own.length, places, size, trained };
  });
  const { trainable, total } = adapter.count();
  return { name: adapter.name, method: adapter.method.name, modules, parameters, factors, trainable, total };
}

/**
 * How the tied factors of a plan are shared, as text to append to a number of modules: " (one A and one B for each of 7 types of
 * module, shared by all layers)". Empty if no factor is tied.
 */
export function describeTies({ factors }: AdapterPlan): string {
  const named = new Map<string, string[]>(); // text -> the factors that it describes
  for (const factor of [...new Set(factors.map((one) => one.factor))].sort()) {
    const plans = factors.filter((one) => one.factor === factor);
    const places = plans.reduce((n, { aliases }) => n + aliases.length, 0);
    if (places === plans.length) continue;
    const text = sharing(plans, places);
    named.set(text, [...(named.get(text) ?? []), `one ${factor}`]);
  }
  const clauses = [...named].map(([text, each]) => `${each.join(" and ")} ${text}`);
  return clauses.length === 0 ? "" : ` (${clauses.join("; ")})`;
}

function sharing(plans: readonly FactorPlan[], places: number): string {
  if (plans.length === 1) return `for all ${places} of them`;
  const byType = plans.every(({ sites }) => sites.every(({ type }) => type === sites[0]!.type));
  const types = new Set(plans.map(({ sites }) => sites[0]!.type)).size;
  return byType && types === plans.length
    ? `for each of ${types} types of module, shared by all layers`
    : `for each of ${plans.length} groups of them`;
}

/** Formats a report as lines of text: the counts, the parameters with the places that use them, and the modules. */
export function formatReport(report: AdapterReport): string {
  const show = (n: number): string => n.toLocaleString("en-US");
  const factors = report.factors.map(
    ({ factor, parameters, places, size, trained }) =>
      `  ${factor}: ${parameters} parameter${parameters === 1 ? "" : "s"}${places > parameters ? ` tied over ${places} places` : ""}, ${show(size)} numbers, ${
        trained === size ? "trained" : trained === 0 ? "frozen" : `${show(trained)} of them trained`
      }`,
  );
  const parameters = report.parameters.flatMap(({ path, shape, trained, aliases }) => [
    `  ${path} [${shape.join(", ")}] ${trained ? "trained" : "frozen"}${aliases.length > 1 ? `, tied over ${aliases.length} places` : ""}`,
    ...aliases.slice(1).map((alias) => `    = ${alias}`),
  ]);
  const modules = report.modules.map(
    ({ path, modules: inside, in: from, out, rank, scale }) =>
      `  ${path} [${out}, ${from}] rank ${rank}, scale ${scale}${inside.length > 1 ? ` (${inside.length} modules)` : ""}`,
  );
  return [
    `adapter "${report.name}", ${report.method}: ${show(report.trainable)} of ${show(report.total)} numbers trained`,
    "factors:",
    ...factors,
    "parameters:",
    ...parameters,
    `${report.modules.length} adapted modules:`,
    ...modules,
  ].join("\n");
}
