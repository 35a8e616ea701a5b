/** Checks the options of a method that come from a file or a command line, before the method is declared with them. */
import { describeValue, isRecord } from "@tiedlora/core";
import { SCALINGS } from "../method.ts";
import { suggestion } from "../nearest.ts";
import { isPattern } from "../regex/pattern.ts";
import { ENTRIES, type MethodName } from "./table.ts";

type Check = readonly [holds: (value: unknown) => boolean, expected: string];

const isNumber = (value: unknown): value is number => typeof value === "number" && Number.isFinite(value);
const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 1;
const isStrings = (value: unknown): boolean =>
  Array.isArray(value) && value.every((one) => typeof one === "string");
const areIds = (value: unknown): boolean =>
  Array.isArray(value) && value.every((one) => Number.isSafeInteger(one) && (one as number) >= 0);
const areNumbers = (value: unknown): boolean =>
  isRecord(value) && Object.keys(value).length <= 10_000 && Object.values(value).every(isNumber);
const among =
  (...names: readonly string[]) =>
  (value: unknown): boolean =>
    typeof value === "string" && names.includes(value);

function isTarget(value: unknown): boolean {
  if (typeof value === "string" || isPattern(value) || isStrings(value)) return true;
  if (!isRecord(value)) return false;
  const { modules, exclude, layers, layersPattern } = value;
  return (
    (typeof modules === "string" || isPattern(modules) || isStrings(modules)) &&
    (exclude === undefined || isPattern(exclude) || isStrings(exclude)) &&
    (layers === undefined || (Array.isArray(layers) && layers.every((one) => Number.isSafeInteger(one)))) &&
    (layersPattern === undefined || typeof layersPattern === "string")
  );
}

const isTieName = among("none", "all", "layer", "shape", "model");

function isTie(value: unknown): boolean {
  if (isTieName(value)) return true;
  if (!isRecord(value)) return false;
  if ("blocks" in value) return isCount(value["blocks"]);
  return Array.isArray(value["groups"]) && value["groups"].every(isStrings);
}

function isTied(value: unknown): boolean {
  if (typeof value === "boolean" || isTie(value)) return true;
  return isRecord(value) && Object.entries(value).every(([factor, tie]) => among("A", "B", "u", "v")(factor) && isTie(tie)); // prettier-ignore
}

const COUNT: Check = [isCount, "a whole number of at least 1"];
const NUMBER: Check = [isNumber, "a number"];
const NAMES: Check = [isStrings, "a list of names"];
const NUMBERS: Check = [areNumbers, "at most 10000 numbers by module name"];

const CHECKS: Readonly<Record<string, Check>> = {
  rank: COUNT,
  alpha: NUMBER,
  dropout: NUMBER,
  learningRate: NUMBER,
  scaling: [among(...Object.keys(SCALINGS)), `one of ${Object.keys(SCALINGS).join(", ")}`],
  target: [isTarget, 'names of modules, "qkv", "all-linear", a pattern, or { modules, exclude, layers }'],
  rankPattern: NUMBERS,
  alphaPattern: NUMBERS,
  modulesToSave: NAMES,
  bias: [among("none", "adapted", "others", "all"), "none, adapted, others or all"],
  trained: NAMES,
  keep: NAMES,
  tied: [isTied, "true, false, how factors are tied, or that for each factor"],
  vectors: COUNT,
  length: COUNT,
  topK: COUNT,
  pool: COUNT,
  experts: COUNT,
  stride: COUNT,
  own: COUNT,
  copies: COUNT,
  bases: COUNT,
  typeRank: COUNT,
  layerRank: COUNT,
  modelRank: COUNT,
  block: COUNT,
  feedforward: NAMES,
  share: [isTie, 'a tie, such as "model" or { blocks: 2 }'],
  tokens: [areIds, "a list of ids of tokens"],
  trainedTokens: [areIds, "a list of ids of tokens"],
  dInitial: NUMBER,
  factor: COUNT,
  projection: COUNT,
  both: [(value) => typeof value === "boolean", "true or false"],
};

/** Throws for an invalid option; the error names it, its value and what is expected. Options without an entry in `CHECKS` pass. */
export function checkOptions(options: Readonly<Record<string, unknown>>): void {
  for (const [name, [holds, expected]] of Object.entries(CHECKS)) {
    if (!Object.hasOwn(options, name) || holds(options[name])) continue;
    throw new Error(`${name} ${describeValue(options[name])}; expected ${expected}`);
  }
}

/** The options of a method that have no setting of their own, and that plain data can give. */
function methodOptionNames(method: MethodName): readonly string[] {
  const { options } = ENTRIES.find(({ name }) => name === method)!;
  return [...options.filter((name) => Object.hasOwn(CHECKS, name)), "scaling"];
}

/**
 * The given options of a method, with names in camel case: "top-k" is topK. Throws for an option that the method does not have, or that
 * has another setting, and for a value of another kind; the error names the option, and what is expected.
 */
export function methodOptions(
  method: MethodName,
  given: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> {
  const known = methodOptionNames(method);
  const options = Object.entries(given).map(([written, value]): [string, unknown] => {
    const name = written.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
    if (!known.includes(name))
      throw new Error(`${method} has no option "${written}"; ${suggestion(name, known, "it has")}`);
    return [name, value];
  });
  checkOptions(Object.fromEntries(options));
  return Object.fromEntries(options);
}
