/** From the switches of the page to a method of the library, and from presets to switches. */
import { DEFAULT_LEARNING_RATE, type FactorName, methods, type PlainMethod, tiedLora } from "tiedlora";
import type { MethodChoice, RunChoice, TieScope } from "./protocol.ts";

interface Preset {
  readonly trained: readonly FactorName[];
  readonly tie: TieScope;
}

/** The paper's configurations as switches. */
const SWITCHES = {
  lora: { trained: ["B", "A"], tie: "none" },
  vera: { trained: ["v", "u"], tie: "model" },
  tl1: { trained: ["A"], tie: "all" },
  tl2: { trained: ["v", "A"], tie: "all" },
  tl3: { trained: ["B", "u"], tie: "all" },
  tl4: { trained: ["v", "B", "u"], tie: "all" },
  tl5: { trained: ["B", "A"], tie: "all" },
  tl6: { trained: ["v", "B", "u", "A"], tie: "all" },
} as const satisfies Readonly<Record<string, Preset>>;

export type PresetName = keyof typeof SWITCHES;
const PRESETS: Readonly<Record<PresetName, Preset>> = SWITCHES;
export const PRESET_NAMES: readonly PresetName[] = Object.keys(SWITCHES) as PresetName[];

const isPreset = (name: string): name is PresetName => Object.hasOwn(SWITCHES, name);

export const TIE_SCOPES: Readonly<Record<TieScope, string>> = {
  all: "one A, B for all layers",
  pairs: "one A, B for two layers",
  model: "one A, B for all modules",
  none: "each layer its own",
};

/** The choice that a preset stands for. */
export function presetChoice(preset: PresetName, rank: number): MethodChoice {
  const { trained, tie } = PRESETS[preset];
  return { preset, trained, tie, rank };
}

/** The preset that these switches are, or "own". */
export function presetOf(trained: readonly FactorName[], tie: TieScope): PresetName | "own" {
  const same = (preset: Preset): boolean =>
    preset.tie === tie &&
    preset.trained.length === trained.length &&
    preset.trained.every((name) => trained.includes(name));
  return PRESET_NAMES.find((name) => same(PRESETS[name])) ?? "own";
}

/** Queries, keys and values, as in the paper: the network is drawn for them. */
const TARGET = "qkv";

/** Throws where nothing is trained, and says so. */
export function methodOf({ preset, trained, tie, rank }: MethodChoice): PlainMethod {
  if (isPreset(preset)) return methods[preset]({ rank, target: TARGET });
  const tied = { all: "all", none: false, model: "model", pairs: { blocks: 2 } } as const;
  return tiedLora({ trained, tied: tied[tie], rank, target: TARGET });
}

/** The learning rate that the method learns well with. */
export function rateOf(choice: MethodChoice): number {
  return choice.trained.length === 0 ? DEFAULT_LEARNING_RATE : methodOf(choice).learningRate;
}

const NAMES: Readonly<Record<string, string>> = { lora: "LoRA", vera: "VeRA" };

export function presetName(preset: string): string {
  return NAMES[preset] ?? preset.toUpperCase();
}

/** What runs are called side by side: those that are alike are told apart by their rates, or else numbered. */
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
