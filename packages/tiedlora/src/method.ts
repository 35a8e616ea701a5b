/**
 * What an adaptation method is: a declaration of its factors (shape, start, tying, trained or not) and of the formula
 * they enter. Everything else (injection, counting, freezing, files, merging) is derived from it, elsewhere.
 */
import type { Shape, Tensor } from "@tiedlora/core";
import { checkName, checkOptions, describeArgument, refuse } from "@tiedlora/core/arguments";
import type { Init } from "./init.ts";
import type { Site, Target } from "./adapter/sites.ts";

/** The learning rate of a method for which none was searched: the one with which most measured methods learn best. */
export const DEFAULT_LEARNING_RATE = 0.03;

/** The sizes that shapes are made of: those of one module, and two of all that are adapted. */
export interface Dims {
  readonly in: number;
  readonly out: number;
  readonly rank: number;
  /** How many layers of the model are adapted. */
  readonly layers: number;
  /** The largest number that divides `in` and `out` of every adapted module. */
  readonly divisor: number;
}

/** One axis of a factor: a size of the module, a fixed number, or a number computed from the sizes. */
export type Dim = keyof Dims | number | ((dims: Dims) => number);

/**
 * Which modules share one factor:
 * - `none`: each module has its own;
 * - `all`: modules of one type (`self_attn.q_proj`) share it over all layers;
 * - `{ blocks: k }`: as `all`, within blocks of k successive layers;
 * - `layer`: the modules of one layer, where the factor has one shape;
 * - `shape`: all modules where the factor has one shape, whatever their type;
 * - `model`: all modules; `in` and `out` axes are as large as the largest, and each module uses the leading part;
 * - `{ groups }`: lists of paths of targets; those that are in no list share nothing;
 * - a function: targets for which it returns the same string.
 *
 * For the last two as for `model`, `in` and `out` axes are as large as the largest.
 */
export type Tie =
  | "none"
  | "all"
  | "layer"
  | "shape"
  | "model"
  | { readonly blocks: number }
  | { readonly groups: readonly (readonly string[])[] }
  | ((site: Site) => string);

/** A factor of a method, with its defaults filled in. */
export interface Factor {
  readonly shape: readonly Dim[];
  readonly init: Init;
  readonly tie: Tie;
  readonly trained: boolean;
}

/** What a forward formula is given besides the factors. */
export interface Call {
  /** Input of the module, [..., in]. */
  readonly x: Tensor;
  /** What the module answers without this adapter, [..., out]. */
  readonly y: Tensor;
  /** alpha / rank, or what the method's scaling makes of them. */
  readonly scale: number;
  /** The frozen weight [out, in]; reading it in a formula makes merging it exact as well. */
  readonly weight: Tensor;
  /** The module's bias [out], if it has one. */
  readonly bias: Tensor | null;
  /** Computes once for all modules that are adapted as one target and read the same input (q, k and v of a layer). */
  readonly shared: <T extends Tensor | LowRank>(compute: () => T) => T;
}

/** An update in the form of LoRA: ΔW = scale · B · A, A [rank, in], B [out, rank]. */
export interface LowRank {
  readonly A: Tensor;
  readonly B: Tensor;
}

/** The factors of one place, by name. */
export type FactorTensors<F extends string = string> = { readonly [K in F]: Tensor };

/** How the scale follows from alpha and rank. */
export const SCALINGS = {
  /** LoRA: alpha / rank. */
  rank: (alpha: number, rank: number): number => alpha / rank,
  /** rsLoRA (Kalajdzievski 2023, arXiv 2312.03732): alpha / √rank. */
  "sqrt-rank": (alpha: number, rank: number): number => alpha / Math.sqrt(rank),
} as const;
/** The names of SCALINGS. */
export type Scaling = keyof typeof SCALINGS;

/** Plain data that a method can be declared again from; it goes into files. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };
/** The name of a method of the library, and the options that it was made with. */
export interface Recipe {
  readonly method: string;
  readonly options: { readonly [key: string]: Json };
}

/** Settings that every method has. */
export interface CommonOptions {
  readonly rank?: number;
  /** Default: the rank, so that the scale is 1 (as in the Tied-LoRA paper). */
  readonly alpha?: number;
  readonly scaling?: Scaling;
  /** Which linear modules are adapted. Default: "qkv", as in the Tied-LoRA paper; the command line's is "all-linear". */
  readonly target?: Target;
  /** Probability of dropping an element of the adapter's input while training. */
  readonly dropout?: number;
  /** Ranks of single modules: the first key that matches the end of a module's path, as in PEFT. */
  readonly rankPattern?: Readonly<Record<string, number>>;
  readonly alphaPattern?: Readonly<Record<string, number>>;
  /** Modules that get a whole trained copy, by names or ends of paths: ["norm", "lm_head"]. They are not adapted. */
  readonly modulesToSave?: readonly string[];
  /** Which biases of the model get a trained copy: none (default), those of adapted modules, or all. */
  readonly bias?: BiasMode;
}

/** Which biases of the model are trained too: none, those of adapted modules, or all. */
export type BiasMode = "none" | "adapted" | "all";

/** A method, ready to be put on a model: what `defineMethod` and the functions of `methods` give. */
export interface Method<F extends string = string> {
  readonly name: string;
  readonly rank: number;
  readonly alpha: number;
  readonly scaling: Scaling;
  readonly target: Target;
  readonly dropout: number;
  readonly rankPattern: Readonly<Record<string, number>>;
  readonly alphaPattern: Readonly<Record<string, number>>;
  readonly modulesToSave: readonly string[];
  readonly bias: BiasMode;
  /** Where to begin with AdamW's highest learning rate, at a scale of 1. */
  readonly learningRate: number;
  readonly factors: { readonly [K in F]: Factor };
  /** The factors whose product is the update. Exactly one of them must start at zero; empty: not checked. */
  readonly product: readonly F[];
  readonly recipe: Recipe;
  /**
   * What the module answers, [..., out]. In a fused target this is asked for each module, with the rows of the factors'
   * `out` axes that are its own. Without it, the answer follows from `lowRank`.
   */
  forward?(factors: FactorTensors<F>, call: Call): Tensor;
  /** The update of a whole target in the form of LoRA, for methods that have one; files of other programs hold that. */
  lowRank?(factors: FactorTensors<F>): LowRank;
  /** Start values that depend on the frozen weight. Makes `adapt` asynchronous. */
  prepare?(context: PrepareContext): Promise<Readonly<Partial<Record<F, Float32Array>>>>;
}

/** A method whose start depends on the frozen weights: `adapt` has to wait for them. */
export type PreparedMethod<F extends string = string> = Method<F> & Required<Pick<Method<F>, "prepare">>;
/** A method whose start does not. */
export type PlainMethod<F extends string = string> = Method<F> & { readonly prepare?: undefined };

/** What `prepare` is given, for each adapted target. */
export interface PrepareContext {
  readonly site: Site;
  readonly dims: Dims;
  /** The frozen weight [out, in], row-major; rows of fused modules under each other. */
  readonly weight: Float32Array;
  /** The shape of a factor on this target. */
  shapeOf(factor: string): Shape;
}

/** What a researcher writes: `forward` or `lowRank`, and whatever differs from the defaults. */
export interface MethodSpec<F extends string> extends CommonOptions {
  readonly name: string;
  readonly factors: { readonly [K in F]: FactorSpec };
  /** The learning rate that it learns well with, for AdamW at a scale of 1. Default: `DEFAULT_LEARNING_RATE`, 0.03. */
  readonly learningRate?: number;
  /** Default: all factors that are declared. */
  readonly product?: readonly NoInfer<F>[];
  readonly recipe?: Recipe;
  /** As {@link Method.forward}. */
  forward?(factors: FactorTensors<F>, call: Call): Tensor;
  /** As {@link Method.lowRank}; one of the two must be given. */
  lowRank?(factors: FactorTensors<F>): LowRank;
  /** As {@link Method.prepare}. */
  prepare?(context: PrepareContext): Promise<Readonly<Partial<Record<F, Float32Array>>>>;
}

/** A factor as it is declared. */
export interface FactorSpec {
  readonly shape: readonly Dim[];
  readonly init: Init;
  /** Default: "none". */
  readonly tie?: Tie;
  /** Default: true. */
  readonly trained?: boolean;
}

/**
 * Completes and checks a declaration. Throws if the settings make no sense, if neither formula is given, or if the
 * start breaks the zero rule.
 *
 * ```ts
 * const scaledLora = defineMethod({
 *   name: "scaled-lora",
 *   rank: 4,
 *   factors: {
 *     A: { shape: ["rank", "in"], init: init.normal(), tie: "all", trained: false },
 *     B: { shape: ["out", "rank"], init: init.zeros() },
 *   },
 *   lowRank: ({ A, B }) => ({ A, B }),
 * });
 * ```
 */
export function defineMethod<const F extends string>(
  spec: MethodSpec<F> & Required<Pick<MethodSpec<F>, "prepare">>,
): PreparedMethod<F>;
export function defineMethod<const F extends string>(
  spec: MethodSpec<F> & { readonly prepare?: undefined },
): PlainMethod<F>;
export function defineMethod<const F extends string>(spec: MethodSpec<F>): Method<F>;
export function defineMethod<const F extends string>(spec: MethodSpec<F>): Method<F> {
  checkOptions("defineMethod", checkOptions("defineMethod", spec, SPEC).factors, SPEC);
  const rank = spec.rank ?? 8;
  const alpha = spec.alpha ?? rank;
  const dropout = spec.dropout ?? 0;
  if (typeof spec.name !== "string" || spec.name === "")
    refuse("defineMethod: name", spec.name, "name", 'one, e.g. "mine"');
  checkSettings(spec.name, rank, alpha, dropout);
  checkRate(spec.name, spec.learningRate);
  checkCommon(spec.name, spec);
  const declared = Object.entries<FactorSpec>(spec.factors);
  const factors = Object.fromEntries(
    declared.map(([name, factor]): [string, Factor] => [name, { tie: "none", trained: true, ...factor }]),
  ) as { [K in F]: Factor };
  if (spec.forward === undefined && spec.lowRank === undefined) {
    throw new Error(`method ${spec.name} has no formula: give forward(factors, call) or lowRank(factors)`);
  }
  const method: Method<F> = {
    name: spec.name,
    rank,
    alpha,
    dropout,
    scaling: spec.scaling ?? "rank",
    target: spec.target ?? "qkv",
    rankPattern: spec.rankPattern ?? {},
    alphaPattern: spec.alphaPattern ?? {},
    modulesToSave: spec.modulesToSave ?? [],
    bias: spec.bias ?? "none",
    learningRate: spec.learningRate ?? DEFAULT_LEARNING_RATE,
    factors,
    product: spec.product ?? (Object.keys(factors) as F[]),
    recipe: spec.recipe ?? { method: spec.name, options: {} },
    ...pick(spec, "forward"),
    ...pick(spec, "lowRank"),
    ...pick(spec, "prepare"),
  };
  checkZeroStart(method);
  return method;
}

/** The field alone, if there is one. */
function pick<T extends object, K extends keyof T>(from: T, field: K): Partial<Pick<T, K>> {
  return from[field] === undefined ? {} : ({ [field]: from[field] } as Pick<T, K>);
}

/** y + scale · B(A x) */
export function lowRankForward({ A, B }: LowRank, { x, y, scale, shared }: Call): Tensor {
  const hidden = shared(() => x.matmul(A.transpose()));
  return y.add(hidden.matmul(scaled(B, scale).transpose()));
}

export function scaled(t: Tensor, by: number): Tensor {
  return by === 1 ? t : t.mul(by);
}

/** Whether f32 can scale by a number: neither 0 nor what rounds to it, or to infinity. */
export function isScale(value: number): boolean {
  return typeof value === "number" && Math.abs(value) >= 1e-20 && Math.abs(value) <= 1e20;
}

/** What a specification looks like, for messages. */
const SPEC = "{ name, factors: { … }, lowRank }";

function checkSettings(name: string, rank: number, alpha: number, dropout: number): void {
  const check = (fits: boolean, what: string, value: unknown, expected: string): void => {
    if (!fits)
      throw new RangeError(`${name}: ${what} ${describeArgument(value)} given; expected ${expected}`);
  };
  check(Number.isInteger(rank) && rank >= 1, "rank", rank, "an integer of at least 1");
  check(isScale(alpha), "alpha", alpha, "a number other than 0, from 1e-20 to 1e20");
  const isShare = typeof dropout === "number" && dropout >= 0 && dropout < 1;
  check(isShare, "dropout", dropout, "at least 0 and below 1");
}

/** The settings that every method has, beside its numbers. */
function checkCommon(name: string, { scaling, bias, modulesToSave, ...patterns }: CommonOptions): void {
  if (scaling !== undefined) checkName(`${name}: scaling`, scaling, Object.keys(SCALINGS) as Scaling[]);
  if (bias !== undefined) checkName(`${name}: bias`, bias, ["none", "adapted", "all"]);
  const given: unknown = modulesToSave ?? [];
  if (!Array.isArray(given) || given.some((one) => typeof one !== "string"))
    refuse(`${name}: modulesToSave`, given, "list of names of modules", 'one, e.g. ["norm"]');
  const { rankPattern = {}, alphaPattern = {} } = patterns;
  for (const [what, pattern] of Object.entries({ rankPattern, alphaPattern }))
    checkOptions(`${name}: ${what}`, pattern, '{ "layers.0.self_attn.q_proj": 4 }');
  for (const [module, rank] of Object.entries(rankPattern))
    checkSettings(`${name}: rankPattern of ${module}`, rank, 1, 0);
  for (const [module, alpha] of Object.entries(alphaPattern))
    checkSettings(`${name}: alphaPattern of ${module}`, 1, alpha, 0);
}

/** Names of CommonOptions. */
export const COMMON_OPTIONS: readonly (keyof CommonOptions)[] = [
  "rank",
  "alpha",
  "scaling",
  "target",
  "dropout",
  "rankPattern",
  "alphaPattern",
  "modulesToSave",
  "bias",
];

function checkRate(name: string, rate: number | undefined): void {
  if (rate !== undefined && !(Number.isFinite(rate) && rate > 0))
    throw new RangeError(
      `${name}: learningRate ${describeArgument(rate)} given; expected a finite number above 0`,
    );
}

/**
 * The zero-start rule: exactly one factor of the product starts at zero, and it is trained. With none, the model changes
 * at step 0. With two, neither ever gets a gradient; with a frozen one, nothing does.
 */
function checkZeroStart<F extends string>(method: Method<F>): void {
  if (method.product.length === 0) return;
  const factors: Readonly<Record<string, Factor>> = method.factors;
  const at = (name: F): Factor => factors[name]!;
  const zero = method.product.filter((name) => at(name).init.zero);
  const trained = method.product.filter((name) => at(name).trained);
  const list = (names: readonly string[]): string => names.join(", ");
  if (trained.length === 0) {
    throw new Error(`${method.name}: nothing is trained; train at least one of ${list(method.product)}`);
  }
  if (zero.length === 0) {
    throw new Error(
      `${method.name}: no factor starts at zero, so the model would change before the first step; start one of the ` +
        `trained factors (${list(trained)}) at zero, for example init: { ${trained[0]}: init.zeros() }`,
    );
  }
  if (zero.length > 1) {
    throw new Error(
      `${method.name}: ${list(zero)} all start at zero, so none of them would ever get a gradient; let exactly one ` +
        `start at zero, for example init: { ${zero[zero.length - 1]}: init.normal() }`,
    );
  }
  if (!at(zero[0]!).trained) {
    throw new Error(
      `${method.name}: ${zero[0]} starts at zero and is frozen, so the update would stay zero for ever; train ` +
        `${zero[0]}, or start it at other values and a trained factor (${list(trained)}) at zero`,
    );
  }
}
