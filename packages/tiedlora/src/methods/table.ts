/**
 * The methods of the library, one entry each. Everything that uses methods by name is derived from this table: `methods`, the
 * learning rates, the command line and its help, sweeps, the playground, and the reading of methods from files.
 */
import { describeValue } from "@tiedlora/core";
import { init } from "../init.ts";
import { checkOptions } from "@tiedlora/core/arguments";
import {
  checkNotNull,
  COMMON_OPTIONS,
  type CommonOptions,
  type Method,
  type PlainMethod,
  type Tie,
} from "../method.ts";
import { adaLora } from "./ada-lora.ts";
import { bitfit } from "./bitfit.ts";
import { bsLora } from "./bs-lora.ts";
import { full } from "./full.ts";
import { hra } from "./hra.ts";
import { ia3 } from "./ia3.ts";
import { lily } from "./lily.ts";
import { nola } from "./nola.ts";
import { normTuning } from "./norm-tuning.ts";
import { oft } from "./oft.ts";
import { prefixTuning } from "./prefix-tuning.ts";
import { promptTuning } from "./prompt-tuning.ts";
import { prolora } from "./prolora.ts";
import { randLora } from "./rand-lora.ts";
import { rasa } from "./rasa.ts";
import { tensLora } from "./tens-lora.ts";
import { tinyLora } from "./tiny-lora.ts";
import { trainedTokens } from "./trained-tokens.ts";
import { uniLora } from "./uni-lora.ts";
import { dora } from "./dora.ts";
import { loha } from "./loha.ts";
import { lokr } from "./lokr.ts";
import { loraBias } from "./lora-bias.ts";
import { loraResidual } from "./lora-residual.ts";
import { loraXs } from "./lora-xs.ts";
import { type Named, recipe } from "./recipe.ts";
import { familyMember, type FactorName, type FactorTies, type TiedLoraOptions } from "./tied-lora.ts";
import { vbLora } from "./vb-lora.ts";

/** A method of the library. */
export interface Entry<N extends string = string, D = (options?: CommonOptions) => Method> {
  /** Its name on the command line and in files. */
  readonly name: N;
  /** Its name in its paper. */
  readonly title: string;
  /** A good learning rate: see LEARNING_RATES. */
  readonly learningRate: number;
  /** The factors and ties of a member of the Tied-LoRA family; null for other methods. */
  readonly member: FamilyMember | null;
  /** The names of the options that it has beside the common ones. */
  readonly options: readonly string[];
  /** Declares the method with the given options. */
  readonly declare: D;
}

/** The settings in which members of the Tied-LoRA family differ: which factors are trained, and how they are tied. */
export interface FamilyMember {
  readonly trained: readonly FactorName[];
  readonly tied: boolean | Tie | FactorTies;
}

export type PresetOptions = Omit<TiedLoraOptions, "trained" | "name">;
type Member<N extends string, O = PresetOptions> = Entry<N, (options?: O) => PlainMethod<FactorName>>;

/** The options of every member of the family. */
export const FAMILY_OPTIONS: readonly (keyof PresetOptions)[] = [...COMMON_OPTIONS, "tied", "init", "keep"];
const OF_FAMILY_ALONE = FAMILY_OPTIONS.filter(
  (name) => !COMMON_OPTIONS.includes(name as keyof CommonOptions),
);

/**
 * The entry of a member of the Tied-LoRA family that has a name of its own. Its options are those of the family and `more`;
 * `complete` converts them to options of the family.
 */
function member<const N extends string, O extends PresetOptions = PresetOptions>(
  name: N,
  title: string,
  learningRate: number,
  { trained, tied }: FamilyMember,
  complete: (options: O) => PresetOptions = (options) => options,
  more: readonly (keyof O & string)[] = [],
): Member<N, O> {
  const declare = (options = {} as O): PlainMethod<FactorName> => {
    checkOptions(name, options, "{ rank: 8 }", [...FAMILY_OPTIONS, ...more]);
    checkNotNull(name, options);
    return familyMember({ tied, ...complete(options), trained, name }, () => learningRate);
  };
  const options = [...OF_FAMILY_ALONE, ...more];
  return { name, title, learningRate, member: { trained, tied }, options, declare };
}

type Own<N extends string, D extends (options: never, named: Named) => Method> = Entry<
  N,
  (options?: Parameters<D>[0]) => ReturnType<D>
>;

/** The entry of a method with its own factors and formula. */
function own<const N extends string, O extends CommonOptions, M extends Method>(
  name: N,
  title: string,
  learningRate: number,
  declare: (options: O, named: Named) => M,
  more: readonly (keyof O & string)[] = [],
  isScaled = true,
): Entry<N, (options?: O) => M> {
  const declared = (options = {} as O): M => {
    checkOptions(name, options, "{ rank: 8 }", [...COMMON_OPTIONS, ...more]);
    checkNotNull(name, options);
    if (!isScaled) checkUnscaled(name, options);
    return declare(options, { name, learningRate, recipe: recipe(name, options) });
  };
  return { name, title, learningRate, member: null, options: more, declare: declared };
}

/** Throws for a scale of a method whose formula has none, where it would have no effect. */
function checkUnscaled(
  name: string,
  { rank = 8, alpha = rank, scaling = "rank", alphaPattern = {} }: CommonOptions,
): void {
  const given = [
    alpha !== rank && `alpha ${describeValue(alpha)}`,
    scaling !== "rank" && `scaling ${describeValue(scaling)}`,
    Object.keys(alphaPattern).length > 0 && "alphaPattern",
  ].find((one) => one !== false);
  if (given !== undefined)
    throw new RangeError(`${name}: ${given} given, and this method's formula has no scale; leave it out`);
}

export interface VeraOptions extends PresetOptions {
  /** The start value of all elements of u. Default: 0.1, as in PEFT. */
  readonly dInitial?: number;
}

/** Gates around one, as far apart as they are large. */
function gatesApart(options: PresetOptions): PresetOptions {
  return { ...options, init: { u: init.normal(1, 1), ...options.init } };
}

function veraOptions({ dInitial = 0.1, ...rest }: VeraOptions): PresetOptions {
  return { ...rest, init: { u: init.constant(dInitial), ...rest.init } };
}

/* oxlint-disable typescript/no-unnecessary-type-assertion -- isolatedDeclarations infers no types from calls */
/**
 * Name, title, learning rate and settings of each method. The keys are the names in `methods`.
 *
 * The rates are the highest ones of AdamW with warm-up and cosine decay, at a scale of 1 (alpha = rank): of 0.003, 0.01, 0.03 and
 * 0.1 the rate with the lowest validation loss at ranks 8 and 128 together, on the embedded base model. Larger models need lower
 * rates. tl4 and tl5 were not searched: they have the rates of tl6 and of lora. rslora, lora-fa, lora-xs and vb-lora were searched
 * at rank 8 alone, lokr, prefix-tuning, prompt-tuning, norm-tuning and full at rank 8
 * on two tasks (docs/learning-rates.md), and the other methods from rasa on not at all; dora, lora-bias and ShareLoRA train pairs as lora does, and have its rate. docs/paper-grid.md describes the
 * searches, and a test compares its table with this one.
 */
export const TABLE = {
  lora: member("lora", "LoRA", 0.01, { trained: ["B", "A"], tied: false }) as Member<"lora">,
  /**
   * VeRA (Kopiczko et al. 2024, arXiv 2310.11454): one random, frozen pair A, B for all modules, and trained vectors u, v for each
   * module. Modules of different sizes use the leading parts of the pair, as in PEFT.
   */
  vera: member("vera", "VeRA", 0.1, { trained: ["v", "u"], tied: "model" }, veraOptions, [
    "dInitial",
  ]) as Member<"vera", VeraOptions>,
  tl1: member("tl1", "TL1", 0.03, { trained: ["A"], tied: true }) as Member<"tl1">,
  tl2: member("tl2", "TL2", 0.1, { trained: ["v", "A"], tied: true }) as Member<"tl2">,
  tl3: member("tl3", "TL3", 0.1, { trained: ["u", "B"], tied: true }) as Member<"tl3">,
  tl4: member("tl4", "TL4", 0.03, { trained: ["v", "u", "B"], tied: true }) as Member<"tl4">,
  tl5: member("tl5", "TL5", 0.01, { trained: ["B", "A"], tied: true }) as Member<"tl5">,
  tl6: member("tl6", "TL6", 0.03, { trained: ["v", "B", "u", "A"], tied: true }) as Member<"tl6">,
  /**
   * A variant of Tied-LoRA of our own: one pair for all layers, which differ by gates of the rank alone. What v takes in TL6 goes into the
   * rank, and the gates start apart, so that layers differ from the first step. docs/paper-grid.md compares it at equal budgets.
   */
  tiedGates: member(
    "tied-gates",
    "tied gates",
    0.03,
    { trained: ["B", "u", "A"], tied: true },
    gatesApart,
  ) as Member<"tied-gates">,
  /** LoRA with the scale alpha / √rank (Kalajdzievski 2023, arXiv 2312.03732). */
  rslora: member("rslora", "rsLoRA", 0.01, { trained: ["B", "A"], tied: false }, (options) => ({
    scaling: "sqrt-rank",
    ...options,
  })) as Member<"rslora">,
  /** LoRA-FA (Zhang et al. 2023, arXiv 2308.03303): LoRA with A frozen at its random start values. */
  loraFa: member("lora-fa", "LoRA-FA", 0.03, { trained: ["B"], tied: false }) as Member<"lora-fa">,
  /** ShareLoRA (Song et al. 2024, arXiv 2406.10785): A and B are both trained, and all layers share A, B or both; here, A. */
  shareLoraA: member("sharelora-a", "ShareLoRA (A)", 0.01, {
    trained: ["B", "A"],
    tied: { A: "all" },
  }) as Member<"sharelora-a">,
  /** As `shareLoraA`, with B shared. */
  shareLoraB: member("sharelora-b", "ShareLoRA (B)", 0.01, {
    trained: ["B", "A"],
    tied: { B: "all" },
  }) as Member<"sharelora-b">,
  /** As `shareLoraA`, with both shared. */
  shareLoraAB: member("sharelora-ab", "ShareLoRA (A, B)", 0.01, {
    trained: ["B", "A"],
    tied: { A: "all", B: "all" },
  }) as Member<"sharelora-ab">,
  /** DoRA (Liu et al. 2024, arXiv 2402.09353): direction and length of the weight's rows are trained separately. */
  dora: own("dora", "DoRA", 0.01, dora) as Own<"dora", typeof dora>,
  /** LoRA with a trained bias on B, as PEFT's `lora_bias`. */
  loraBias: own("lora-bias", "LoRA with a bias", 0.01, loraBias) as Own<"lora-bias", typeof loraBias>,
  /** LoRA that subtracts its start, which is PiSSA's (Meng et al. 2024, arXiv 2404.02948) or another that is not zero. */
  loraResidual: own("lora-residual", "LoRA with a residual start", 0.01, loraResidual) as Own<
    "lora-residual",
    typeof loraResidual
  >,
  /** LoRA-XS (Bałazy et al. 2024, arXiv 2405.17604): an r×r core between frozen singular vectors of the weight. */
  loraXs: own("lora-xs", "LoRA-XS", 0.1, loraXs) as Own<"lora-xs", typeof loraXs>,
  /** VB-LoRA (Li et al. 2024, arXiv 2405.15179): mixtures of the vectors of one bank. */
  vbLora: own("vb-lora", "VB-LoRA", 0.03, vbLora, ["vectors", "length", "topK"]) as Own<
    "vb-lora",
    typeof vbLora
  >,
  /** RaSA (He et al. 2025, arXiv 2503.12576): part of each layer's rank is in a pool that all layers share. */
  rasa: own("rasa", "RaSA", 0.01, rasa, ["pool"]) as Own<"rasa", typeof rasa>,
  /** Lily (Zhong et al. 2024, arXiv 2407.09946): experts B that all layers share, mixed by a router. It cannot be merged. */
  lily: own("lily", "Lily", 0.01, lily, ["experts", "stride"]) as Own<"lily", typeof lily>,
  /** PRoLoRA (Wang et al. 2024, arXiv 2402.16902): A and B partly made of rotated copies of smaller matrices. */
  prolora: own("prolora", "PRoLoRA", 0.01, prolora, ["own", "copies"]) as Own<"prolora", typeof prolora>,
  /** NOLA (Koohpayegani et al. 2024, arXiv 2310.02556): A and B are mixtures of random matrices. */
  nola: own("nola", "NOLA", 0.03, nola, ["bases"]) as Own<"nola", typeof nola>,
  /** Uni-LoRA (Li et al. 2025, arXiv 2506.00799): the elements of all A and B are those of one vector. */
  uniLora: own("uni-lora", "Uni-LoRA", 0.03, uniLora, ["length"]) as Own<"uni-lora", typeof uniLora>,
  /** TinyLoRA (Morris et al. 2026, arXiv 2602.04118): LoRA-XS with one short vector for the whole model. */
  tinyLora: own("tiny-lora", "TinyLoRA", 0.03, tinyLora, ["length", "share"]) as Own<
    "tiny-lora",
    typeof tinyLora
  >,
  /** TensLoRA (Marmoret et al. 2025, arXiv 2509.19391): all updates are one tensor in Tucker form. */
  tensLora: own("tens-lora", "TensLoRA", 0.01, tensLora, ["typeRank", "layerRank"]) as Own<
    "tens-lora",
    typeof tensLora
  >,
  /** BSLoRA (Zhou et al. 2025): a LoRA of the module, one of the layer and one of the model. */
  bsLora: own("bs-lora", "BSLoRA", 0.01, bsLora, ["layerRank", "modelRank"]) as Own<"bs-lora", typeof bsLora>,
  /** (IA)³ (Liu et al. 2022, arXiv 2205.05638): activations are scaled. */
  ia3: own("ia3", "(IA)³", 0.03, ia3, ["feedforward"], false) as Own<"ia3", typeof ia3>,
  /** BitFit (Ben Zaken et al. 2022, arXiv 2106.10199): biases alone. */
  bitfit: own("bitfit", "BitFit", 0.03, bitfit) as Own<"bitfit", typeof bitfit>,
  /** RandLoRA (Albert et al. 2025, arXiv 2502.00987): a full-rank sum of random low-rank products. */
  randLora: own("rand-lora", "RandLoRA", 0.03, randLora) as Own<"rand-lora", typeof randLora>,
  /** AdaLoRA (Zhang et al. 2023, arXiv 2303.10512): a product in the form of a singular value decomposition, for pruning ranks. */
  adaLora: own("ada-lora", "AdaLoRA", 0.01, adaLora) as Own<"ada-lora", typeof adaLora>,
  /** LoHa (Hyeon-Woo et al. 2022, arXiv 2108.06098): the elementwise product of two low-rank matrices. */
  loha: own("loha", "LoHa", 0.01, loha) as Own<"loha", typeof loha>,
  /** LoKr (Hyeon-Woo et al. 2022, arXiv 2108.06098): a Kronecker product, one side of which is of low rank. */
  lokr: own("lokr", "LoKr", 0.03, lokr, ["factor", "both"]) as Own<"lokr", typeof lokr>,
  /** HRA (Yuan et al. 2024, arXiv 2405.17484): the input is turned by Householder reflections. */
  hra: own("hra", "HRA", 0.01, hra, [], false) as Own<"hra", typeof hra>,
  /** OFT (Qiu et al. 2023, arXiv 2306.07280): the input is turned in blocks, by Cayley transforms. */
  oft: own("oft", "OFT", 0.01, oft, ["block"], false) as Own<"oft", typeof oft>,
  /** A few rows of an embedding, as PEFT's trainable tokens. */
  trainedTokens: own("trained-tokens", "trained tokens", 0.01, trainedTokens, ["tokens"]) as Own<
    "trained-tokens",
    typeof trainedTokens
  >,
  /** Prefix tuning (Li & Liang 2021, arXiv 2101.00190): trained keys and values in front of each attention. It cannot be merged. */
  prefixTuning: own(
    "prefix-tuning",
    "prefix tuning",
    0.3,
    prefixTuning,
    ["length", "projection"],
    false,
  ) as Own<"prefix-tuning", typeof prefixTuning>,
  /** Prompt tuning (Lester et al. 2021, arXiv 2104.08691): trained vectors in front of every sequence. It cannot be merged. */
  promptTuning: own("prompt-tuning", "prompt tuning", 0.3, promptTuning, ["length", "tokens"], false) as Own<
    "prompt-tuning",
    typeof promptTuning
  >,
  /** Norm tuning (Zhao et al. 2023, arXiv 2312.11420): the scales and biases of norms alone. */
  normTuning: own("norm-tuning", "norm tuning", 0.1, normTuning, [], false) as Own<
    "norm-tuning",
    typeof normTuning
  >,
  /** Full fine-tuning: all parameters of the model. */
  full: own("full", "full fine-tuning", 0.003, full, [], false) as Own<"full", typeof full>,
} as const;

type Table = typeof TABLE;

/** The name of a method of the library. */
export type MethodName = Table[keyof Table]["name"];

/** The name of a method whose start values do not depend on the weights, so that `adapt` is synchronous. */
export type PlainMethodName = {
  [K in keyof Table]: ReturnType<Table[K]["declare"]> extends PlainMethod ? Table[K]["name"] : never;
}[keyof Table];

/** The function of each method, by its name in TypeScript. */
export type Declarations = { readonly [K in keyof Table]: Table[K]["declare"] };

/** The table as a list, in its order. */
export const ENTRIES: readonly Entry<MethodName>[] = Object.values(TABLE);
