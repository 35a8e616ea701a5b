/** The methods by name: the paper's configurations, and others of the same form. */
import { init, type Init } from "../init.ts";
import type { CommonOptions, Method, PlainMethod, PreparedMethod } from "../method.ts";
import { dora } from "./dora.ts";
import { loraBias } from "./lora-bias.ts";
import { loraXs } from "./lora-xs.ts";
import type { MethodName } from "./names.ts";
import { tiedLora, type FactorName, type FactorTies, type TiedLoraOptions } from "./tied-lora.ts";
import { vbLora, type VbLoraOptions } from "./vb-lora.ts";

export type PresetOptions = Omit<TiedLoraOptions, "trained" | "name">;
export type Preset = (options?: PresetOptions) => PlainMethod<FactorName>;

/** A point of the Tied-LoRA family under a name of its own. */
function preset(
  name: string,
  trained: readonly FactorName[],
  tied: boolean | FactorTies = true,
  defaults: PresetOptions = {},
): Preset {
  return (options = {}) => tiedLora({ tied, ...defaults, ...options, trained, name });
}

export interface VeraOptions extends PresetOptions {
  /** The start of u. Default: 0.1, as in PEFT. */
  readonly dInitial?: number;
}

/**
 * VeRA (Kopiczko et al. 2024, arXiv 2310.11454): one random, frozen pair A, B for all modules, and trained vectors. Modules
 * of different sizes use the leading parts of the pair, as in PEFT.
 */
function vera(options: VeraOptions = {}): PlainMethod<FactorName> {
  const { dInitial = 0.1, ...rest } = options;
  const start: Partial<Record<FactorName, Init>> = { u: init.constant(dInitial), ...rest.init };
  return tiedLora({ tied: "model", ...rest, init: start, trained: ["v", "u"], name: "vera" });
}

export interface Methods {
  readonly lora: Preset;
  readonly vera: (options?: VeraOptions) => PlainMethod<FactorName>;
  readonly tl1: Preset;
  readonly tl2: Preset;
  readonly tl3: Preset;
  readonly tl4: Preset;
  readonly tl5: Preset;
  readonly tl6: Preset;
  readonly rslora: Preset;
  readonly loraFa: Preset;
  readonly shareLoraA: Preset;
  readonly shareLoraB: Preset;
  readonly shareLoraAB: Preset;
  readonly dora: (options?: CommonOptions) => PreparedMethod<"A" | "B" | "m">;
  readonly loraBias: (options?: CommonOptions) => PlainMethod<"A" | "B" | "c">;
  readonly loraXs: (options?: CommonOptions) => PreparedMethod<"A" | "R" | "B">;
  readonly vbLora: (options?: VbLoraOptions) => PlainMethod<"bank" | "a" | "b">;
  readonly tiedLora: (options: TiedLoraOptions) => PlainMethod<FactorName>;
}

/**
 * lora to tl6 are the configurations of the Tied-LoRA paper. Which subsets TL1 to TL4 name is our reading of it;
 * `tiedLora` has all 15.
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
export const methods: Methods = {
  lora: preset("lora", ["B", "A"], false),
  vera,
  tl1: preset("tl1", ["A"]),
  tl2: preset("tl2", ["v", "A"]),
  tl3: preset("tl3", ["u", "B"]),
  tl4: preset("tl4", ["v", "u", "B"]),
  tl5: preset("tl5", ["B", "A"]),
  tl6: preset("tl6", ["v", "B", "u", "A"]),
  /** LoRA with the scale alpha / √rank (Kalajdzievski 2023, arXiv 2312.03732). */
  rslora: preset("rslora", ["B", "A"], false, { scaling: "sqrt-rank" }),
  /** A frozen at random (Zhang et al. 2023, arXiv 2308.03303). */
  loraFa: preset("lora-fa", ["B"], false),
  /** ShareLoRA (Song et al. 2024, arXiv 2406.10785): A, or B, or both shared by all layers, both trained. */
  shareLoraA: preset("sharelora-a", ["B", "A"], { A: "all" }),
  shareLoraB: preset("sharelora-b", ["B", "A"], { B: "all" }),
  shareLoraAB: preset("sharelora-ab", ["B", "A"], { A: "all", B: "all" }),
  dora,
  loraBias,
  loraXs,
  vbLora,
  tiedLora,
};

/** What the command line and files call the methods. */
const BY_NAME: Readonly<Record<MethodName, (options?: CommonOptions) => Method>> = {
  lora: methods.lora,
  vera: methods.vera,
  tl1: methods.tl1,
  tl2: methods.tl2,
  tl3: methods.tl3,
  tl4: methods.tl4,
  tl5: methods.tl5,
  tl6: methods.tl6,
  rslora: methods.rslora,
  "lora-fa": methods.loraFa,
  "sharelora-a": methods.shareLoraA,
  "sharelora-b": methods.shareLoraB,
  "sharelora-ab": methods.shareLoraAB,
  dora: methods.dora,
  "lora-bias": methods.loraBias,
  "lora-xs": methods.loraXs,
  "vb-lora": methods.vbLora,
};

export type { MethodName } from "./names.ts";

/** The methods of the library, by the names of the command line. */
export const METHOD_NAMES: readonly MethodName[] = Object.keys(BY_NAME) as MethodName[];

/** Names of methods whose start does not depend on the weights, so that `adapt` need not wait. */
export type PlainMethodName = Exclude<MethodName, "dora" | "lora-xs">;

/** A method by its name. Throws for an unknown one, and lists those that there are. */
export function methodByName(name: PlainMethodName, options?: CommonOptions): PlainMethod;
export function methodByName(name: string, options?: CommonOptions): Method;
export function methodByName(name: string, options: CommonOptions = {}): Method {
  const known = METHOD_NAMES.find((one) => one === name);
  if (known === undefined)
    throw new Error(`unknown method "${name}"; expected one of ${METHOD_NAMES.join(", ")}`);
  return BY_NAME[known](options);
}
