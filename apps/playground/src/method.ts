/** Converts the switches of the page to a method of the library, and presets (the library's methods) to switches. */
import {
  DEFAULT_LEARNING_RATE,
  type FactorName,
  type Method,
  methodByName,
  type MethodName,
  tiedLora,
} from "tiedlora";
import { type Entry, ENTRIES } from "tiedlora/internal";
import type { MethodChoice, RunChoice, TieScope } from "./protocol.ts";

/** The methods that adapt no linear, for which the drawing has no place. */
const UNDRAWN: readonly MethodName[] = [
  "trained-tokens",
  "prefix-tuning",
  "prompt-tuning",
  "norm-tuning",
  "full",
];

/** Every method of the library that adapts linears is a preset. */
export type PresetName = MethodName;
export const PRESET_NAMES: readonly PresetName[] = ENTRIES.map(({ name }) => name).filter(
  (name) => !UNDRAWN.includes(name),
);

const entryOf = (preset: string): Entry<MethodName> | undefined =>
  ENTRIES.find(({ name }) => name === preset);

export const TIE_SCOPES: Readonly<Record<TieScope, string>> = {
  all: "one A, B for all layers",
  pairs: "one A, B for two layers",
  model: "one A, B for all modules",
  none: "each layer its own",
};

/** The positions of the switches that describe a method. */
interface Switches {
  readonly trained: readonly FactorName[];
  readonly tie: TieScope;
}

function switchesOf({ member }: Entry): Switches | null {
  if (member === null) return null;
  const { trained, tied } = member;
  const tie = tied === true ? "all" : tied === false ? "none" : tied === "model" ? "model" : null;
  return tie === null ? null : { trained, tie };
}

/** Whether the switches can describe the method. They cannot for presets that have other kinds of factors or tying. */
export function hasSwitches({ preset }: MethodChoice): boolean {
  const entry = entryOf(preset);
  return entry === undefined || switchesOf(entry) !== null;
}

/** Whether the method trains anything: false only if it has switches and all are off. */
export function trainsSomething(choice: MethodChoice): boolean {
  return choice.trained.length > 0 || !hasSwitches(choice);
}

/** The method of a preset, at a rank. */
export function presetChoice(preset: PresetName, rank: number): MethodChoice {
  const { trained, tie } = switchesOf(entryOf(preset)!) ?? { trained: [], tie: "none" };
  return { preset, trained, tie, rank };
}

/** The first preset with these positions of the switches, or "own". */
export function presetOf(trained: readonly FactorName[], tie: TieScope): PresetName | "own" {
  const same = (switches: Switches | null): boolean =>
    switches !== null &&
    switches.tie === tie &&
    switches.trained.length === trained.length &&
    switches.trained.every((name) => trained.includes(name));
  return ENTRIES.find((entry) => same(switchesOf(entry)))?.name ?? "own";
}

/** The adapted modules: queries, keys and values, as in the paper. The drawing of the network is laid out for them. */
const TARGET = "qkv";

/** The method of the library for a choice. Throws if it would train nothing. */
export function methodOf({ preset, trained, tie, rank }: MethodChoice): Method {
  if (entryOf(preset) !== undefined) return methodByName(preset, { rank, target: TARGET });
  const tied = { all: "all", none: false, model: "model", pairs: { blocks: 2 } } as const;
  return tiedLora({ trained, tied: tied[tie], rank, target: TARGET });
}

/** The learning rate that suits the method. */
export function rateOf(choice: MethodChoice): number {
  if (!trainsSomething(choice)) return DEFAULT_LEARNING_RATE;
  // a preset's rate does not depend on the rank, which may be one that the preset cannot have
  return entryOf(choice.preset)?.learningRate ?? methodOf(choice).learningRate;
}

export function presetName(preset: string): string {
  return entryOf(preset)?.title ?? preset;
}

/** The labels of runs, by ID. Runs with equal labels also get their learning rates, and numbers if they are still equal. */
export function labelsOf(runs: readonly RunChoice[]): Map<number, string> {
  const alike = (label: (run: RunChoice) => string, run: RunChoice): number =>
    runs.filter((other) => label(other) === label(run)).length;
  const plain = ({ method }: RunChoice): string => labelOf(method);
  const rated = (run: RunChoice): string =>
    alike(plain, run) > 1 ? `${plain(run)} · rate ${run.lr}` : plain(run);
  return new Map(
    runs.map((run, i) => [run.id, alike(rated, run) > 1 ? `${rated(run)} (method ${i + 1})` : rated(run)]),
  );
}

export function labelOf({ preset, trained, rank }: MethodChoice): string {
  return `${preset === "own" ? `own (${trained.join(", ")})` : presetName(preset)} · rank ${rank}`;
}
