/** From the switches of the page to a method of the library, and from presets to switches. */
import {
  METHOD_NAMES,
  type FactorName,
  type PlainMethod,
  type PlainMethodName,
  methodByName,
  tiedLora,
} from "tiedlora";
import type { MethodChoice, TieScope } from "./protocol.ts";

interface Preset {
  readonly trained: readonly FactorName[];
  readonly tie: TieScope;
}

/** The paper's configurations as switches. */
export const PRESETS: Readonly<Record<string, Preset>> = {
  lora: { trained: ["B", "A"], tie: "none" },
  vera: { trained: ["v", "u"], tie: "model" },
  tl1: { trained: ["A"], tie: "all" },
  tl2: { trained: ["v", "A"], tie: "all" },
  tl3: { trained: ["B", "u"], tie: "all" },
  tl4: { trained: ["v", "B", "u"], tie: "all" },
  tl5: { trained: ["B", "A"], tie: "all" },
  tl6: { trained: ["v", "B", "u", "A"], tie: "all" },
};

export const TIE_SCOPES: Readonly<Record<TieScope, string>> = {
  all: "one A, B for all layers",
  pairs: "one A, B for two layers",
  model: "one A, B for all modules",
  none: "each layer its own",
};

/** The choice that a preset stands for. */
export function presetChoice(preset: string, rank: number): MethodChoice {
  const { trained, tie } = PRESETS[preset]!;
  return { preset, trained, tie, rank };
}

/** The preset that these switches are, or "own". */
export function presetOf(trained: readonly FactorName[], tie: TieScope): string {
  const same = (preset: Preset): boolean =>
    preset.tie === tie &&
    preset.trained.length === trained.length &&
    preset.trained.every((name) => trained.includes(name));
  return Object.keys(PRESETS).find((name) => same(PRESETS[name]!)) ?? "own";
}

/** Throws where nothing is trained, and says so. */
export function methodOf({ preset, trained, tie, rank }: MethodChoice): PlainMethod {
  if (METHOD_NAMES.some((name) => name === preset)) return methodByName(preset as PlainMethodName, { rank });
  const tied = { all: "all", none: false, model: "model", pairs: { blocks: 2 } } as const;
  return tiedLora({ trained, tied: tied[tie], rank });
}

const NAMES: Readonly<Record<string, string>> = { lora: "LoRA", vera: "VeRA" };

export function presetName(preset: string): string {
  return NAMES[preset] ?? preset.toUpperCase();
}

export function labelOf({ preset, trained, rank }: MethodChoice): string {
  return `${preset === "own" ? `own (${trained.join(", ")})` : presetName(preset)} · rank ${rank}`;
}
