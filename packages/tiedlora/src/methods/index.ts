/** The methods by name: the paper's configurations, and others of the same form. */
import type { CommonOptions, Method } from "../method.ts";
import { tiedLora, type FactorName, type TiedLoraOptions } from "./tied-lora.ts";
import { init, type Init } from "../init.ts";

export type PresetOptions = Omit<TiedLoraOptions, "trained" | "name">;
export type Preset = (options?: PresetOptions) => Method<FactorName>;

/** A point of the family under a name of its own. */
function preset(name: string, trained: readonly FactorName[], tied = true): Preset {
  return (options = {}) => tiedLora({ tied, ...options, trained, name });
}

/** The names that the command line and files know. */
export const METHOD_NAMES = ["lora", "vera", "tl1", "tl2", "tl3", "tl4", "tl5", "tl6"] as const;
export type MethodName = (typeof METHOD_NAMES)[number];

/**
 * The configurations of the Tied-LoRA paper. Which subsets TL1 to TL4 name is our reading of it; `tiedLora` has all 15.
 *
 * | name | trained | tied | starts at zero | trainable (L layers, width d) |
 * |---|---|---|---|---|
 * | lora | B, A | nothing | B | 4Ldr |
 * | vera | v, u | A, B | v | L(r + 3d) |
 * | tl1 | A | A, B | A | dr |
 * | tl2 | v, A | A, B | v | dr + 3dL |
 * | tl3 | u, B | A, B | B | (L + 3d)r |
 * | tl4 | v, u, B | A, B | B | (L + 3d)r + 3dL |
 * | tl5 | B, A | A, B | B | 4dr |
 * | tl6 | v, B, u, A | A, B | B | (L + 4d)r + 3dL |
 */
export const methods: Readonly<Record<Exclude<MethodName, "vera">, Preset>> & {
  readonly vera: (options?: VeraOptions) => Method<FactorName>;
  readonly tiedLora: (options: TiedLoraOptions) => Method<FactorName>;
} = {
  lora: preset("lora", ["B", "A"], false),
  vera,
  tl1: preset("tl1", ["A"]),
  tl2: preset("tl2", ["v", "A"]),
  tl3: preset("tl3", ["u", "B"]),
  tl4: preset("tl4", ["v", "u", "B"]),
  tl5: preset("tl5", ["B", "A"]),
  tl6: preset("tl6", ["v", "B", "u", "A"]),
  tiedLora,
};

export interface VeraOptions extends PresetOptions {
  /** The start of u. Default: 0.1, as in PEFT. */
  readonly dInitial?: number;
}

/**
 * VeRA (Kopiczko et al. 2024, arXiv 2310.11454): one random, frozen pair A, B for all modules, and trained vectors. Modules
 * of different sizes use the leading parts of the pair, as in PEFT.
 */
function vera(options: VeraOptions = {}): Method<FactorName> {
  const { dInitial = 0.1, ...rest } = options;
  const start: Partial<Record<FactorName, Init>> = { u: init.constant(dInitial), ...rest.init };
  return tiedLora({ tied: "model", ...rest, init: start, trained: ["v", "u"], name: "vera" });
}

/** A method by its name. Throws for an unknown one, and lists those that there are. */
export function methodByName(name: string, options: CommonOptions = {}): Method {
  const known = METHOD_NAMES.find((one) => one === name);
  if (known === undefined)
    throw new Error(`unknown method "${name}"; expected one of ${METHOD_NAMES.join(", ")}`);
  return methods[known](options);
}
