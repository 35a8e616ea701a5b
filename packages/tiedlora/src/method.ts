/**
 * Adaptation methods. A method is a declaration of its factors (shape, start values, tying, trained or not) and of the formula that
 * uses them. Other files derive everything else from it: injection, counting, freezing, files, merging.
 */
import type { Key, Shape, Tensor } from "@tiedlora/core";
import { checkName, checkOptions, describeArgument, refuse } from "@tiedlora/core/arguments";
import type { Init } from "./init.ts";
import type { Site, Target } from "./adapter/sites.ts";
import { checkTokens } from "./token-ids.ts";
import { checkFactors, checkZeroStart } from "./zero-start.ts";

/** The learning rate of a method for which none was searched: the rate with which most of the measured methods learn best. */
export const DEFAULT_LEARNING_RATE = 0.03;

/** The sizes from which shapes are computed: three of one module, and three of all adapted modules. */
export interface Dims {
  readonly in: number;
  readonly out: number;
  readonly rank: number;
  /** The number of layers that are adapted. */
  readonly layers: number;
  /** The number of types of modules that are adapted: `self_attn.q_proj` is one type, `mlp.up_proj` another. */
  readonly types: number;
  /** The greatest common divisor of `in` and `out` of all adapted modules. */
  readonly divisor: number;
}

/** One axis of a factor: a size of the module, a fixed number, or a number computed from the sizes. */
export type Dim = keyof Dims | number | ((dims: Dims) => number);

/**
 * Which modules share one factor:
 * - `none`: each module has its own;
 * - `all`: the modules of one type (`self_attn.q_proj`) share it over all layers;
 * - `{ blocks: k }`: the modules of one type share it within blocks of k successive layers;
 * - `layer`: the modules of one layer share it, if the factor has the same shape in them;
 * - `shape`: all modules in which the factor has the same shape share it, whatever their type;
 * - `model`: all modules share it; its `in` and `out` axes are as large as the largest module needs, and each module uses the
 *   leading part;
 * - `{ groups }`: lists of targets' paths; the targets of one list share it, and a target in no list has its own;
 * - a function: the targets for which it returns the same string share it.
 *
 * With `{ groups }` and functions, the `in` and `out` axes are as large as the largest module needs, as with `model`; so are axes that
 * are computed by a function of the sizes.
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
export type Factor = Required<Omit<FactorSpec, "on">> & Pick<FactorSpec, "on">;

/** The place of a model for which a formula is evaluated. */
export interface Place {
  readonly site: Site;
  readonly dims: Dims;
  /** The index of the site's layer among the adapted layers, from 0; 0 outside of layers. */
  readonly layer: number;
  /** The index of the site's type among the adapted types, from 0. */
  readonly type: number;
  /** The number of elements of each factor in the whole adapter, where a shared parameter counts once. */
  readonly sizes: Readonly<Record<string, number>>;
  /**
   * A random key of this site, from the adapter's seed, with which a formula can draw frozen numbers anew in each program instead of
   * keeping them in memory. A method that uses it must say so: `seeded: true`.
   */
  readonly key: Key;
}

/** The arguments of a forward formula besides the factors. */
export interface Call {
  /** Input of the module, [..., in]. */
  readonly x: Tensor;
  /** Output of the module without this adapter, [..., out]. */
  readonly y: Tensor;
  /** The scale of the update: alpha / rank, or the value of the method's `scaling`, times the adapter's multiplier. */
  readonly scale: number;
  /** The frozen weight [out, in]; a formula that reads it can still be merged exactly. */
  readonly weight: Tensor;
  /** The module's bias [out], if it has one. */
  readonly bias: Tensor | null;
  /** Computes a value once for all modules that are adapted as one target and read the same input (q, k and v of a layer). */
  readonly shared: <T extends Tensor | LowRank>(compute: () => T) => T;
  /** Which site, layer and type of module the formula is evaluated for. */
  readonly place: Place;
}

/** An update in the form of LoRA: ΔW = scale · B · A, A [rank, in], B [out, rank]. */
export interface LowRank {
  readonly A: Tensor;
  readonly B: Tensor;
}

/** The factors at one adapted place, by name. */
export type FactorTensors<F extends string = string> = { readonly [K in F]: Tensor };

/** The functions that compute the scale from alpha and rank, by name. */
export const SCALINGS = {
  /** LoRA: alpha / rank. */
  rank: (alpha: number, rank: number): number => alpha / rank,
  /** rsLoRA (Kalajdzievski 2023, arXiv 2312.03732): alpha / √rank. */
  "sqrt-rank": (alpha: number, rank: number): number => alpha / Math.sqrt(rank),
} as const;
/** The names of SCALINGS. */
export type Scaling = keyof typeof SCALINGS;

/** Plain data that files hold, from which a method can be declared again. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };
/** The name of a method of the library, and the options with which it was declared. */
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
  /** The probability that an element of the adapter's input is dropped in training. Default: 0. */
  readonly dropout?: number;
  /** Ranks of single modules; the first key that matches the end of a module's path applies, as in PEFT. */
  readonly rankPattern?: Readonly<Record<string, number>>;
  readonly alphaPattern?: Readonly<Record<string, number>>;
  /** Modules that are trained whole, as copies, by names or ends of paths: ["norm", "lm_head"]. They get no factors. */
  readonly modulesToSave?: readonly string[];
  /** Which biases of the model are trained too, as copies. Default: "none". */
  readonly bias?: BiasMode;
  /** The ids of tokens whose rows of the input embedding are trained too, each once. Default: none. */
  readonly trainedTokens?: readonly number[];
}

/** Which biases of the model are trained too: none, those of adapted modules, those of all others, or all. */
export type BiasMode = "none" | "adapted" | "others" | "all";

/** A method that can be put on a model, as `defineMethod` and the functions of `methods` return it. */
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
  readonly trainedTokens: readonly number[];
  /** A good first choice for AdamW's highest learning rate, at a scale of 1. */
  readonly learningRate: number;
  readonly factors: { readonly [K in F]: Factor };
  /**
   * The products whose sum is the update. In each, exactly one factor must start at zero; if the list is empty, this is not checked.
   */
  readonly products: readonly (readonly F[])[];
  /** Whether formulas or factors depend on the adapter's seed also after the start, so that files must name the seed. */
  readonly seeded: boolean;
  readonly recipe: Recipe;
  /**
   * Returns the module's output, [..., out]. In a fused target it is called for each module, with the module's own rows of the
   * factors' `out` axes. Default: computed from `lowRank`. It and the other formulas must follow from their arguments alone, since results
   * are used again for equal arguments, and generation builds the graph of a token twice and then runs it again.
   */
  forward?(factors: FactorTensors<F>, call: Call): Tensor;
  /** The update of a whole target in the form of LoRA, for methods that have one. Files of other programs need this form. */
  lowRank?(factors: FactorTensors<F>, place: Place): LowRank;
  /**
   * For linears that make keys or values of an attention: what every query sees in front of its sequence, [n, width]; for a linear that makes
   * queries too, keys and values in one row. No weight can hold it.
   */
  prefix?(factors: FactorTensors<F>, place: Place): Tensor | null;
  /** For input embeddings: vectors [n, width] that every sequence begins with. No weight can hold them. */
  prompt?(factors: FactorTensors<F>, place: Place): Tensor | null;
  /** Start values that depend on the frozen weight. Makes `adapt` asynchronous. */
  prepare?(context: PrepareContext): Promise<Readonly<Partial<Record<F, Float32Array>>>>;
}

/** A method whose start values depend on the frozen weights: `adapt` has to wait for them. */
export type PreparedMethod<F extends string = string> = Method<F> & Required<Pick<Method<F>, "prepare">>;
/** A method whose start values do not depend on the frozen weights. */
export type PlainMethod<F extends string = string> = Method<F> & { readonly prepare?: undefined };

/** The argument of `prepare`, which is called once for each adapted target. */
export interface PrepareContext {
  readonly site: Site;
  readonly dims: Dims;
  /** The scale of the update at this target. */
  readonly scale: number;
  /** The frozen weight [out, in], row-major; the rows of a fused target's modules follow one another. */
  readonly weight: Float32Array;
  /** The shape of a factor on this target. */
  shapeOf(factor: string): Shape;
}

/** The argument of `defineMethod`: the factors, `forward` or `lowRank`, and the settings that differ from the defaults. */
export interface MethodSpec<F extends string> extends CommonOptions {
  readonly name: string;
  readonly factors: { readonly [K in F]: FactorSpec };
  /** A good highest learning rate for AdamW, at a scale of 1. Default: `DEFAULT_LEARNING_RATE`, 0.03. */
  readonly learningRate?: number;
  /**
   * The factors whose product is the update, or several such lists if the update is a sum of products: in each, exactly one factor
   * must start at zero. An empty list: the start is not checked. Default: all factors that are declared.
   */
  readonly product?: readonly NoInfer<F>[] | readonly (readonly NoInfer<F>[])[];
  /** Whether a formula uses {@link Place.key}. Default: whether a factor is `bySeed`. */
  readonly seeded?: boolean;
  readonly recipe?: Recipe;
  /** As {@link Method.forward}. */
  forward?(factors: FactorTensors<F>, call: Call): Tensor;
  /** As {@link Method.lowRank}; one of the two must be given. */
  lowRank?(factors: FactorTensors<F>, place: Place): LowRank;
  /** As {@link Method.prefix}, beside one of the other two. */
  prefix?(factors: FactorTensors<F>, place: Place): Tensor | null;
  /** As {@link Method.prompt}, beside `forward` or `lowRank`. */
  prompt?(factors: FactorTensors<F>, place: Place): Tensor | null;
  /** As {@link Method.prepare}. */
  prepare?(context: PrepareContext): Promise<Readonly<Partial<Record<F, Float32Array>>>>;
}

/** The declaration of a factor. */
export interface FactorSpec {
  readonly shape: readonly Dim[];
  readonly init: Init;
  /** Which modules share the factor. Default: "none". */
  readonly tie?: Tie;
  /** Whether the factor is trained. Default: true. */
  readonly trained?: boolean;
  /** The factor's learning rate as a multiple of the adapter's: 16 for the B of LoRA+. Default: 1. */
  readonly rate?: number;
  /**
   * Whether files name the seed of the factor's start values instead of holding them: for large frozen factors. Default: false.
   */
  readonly bySeed?: boolean;
  /** The sites that have the factor; at others, formulas are given undefined in its place. Default: all. */
  readonly on?: (site: Site) => boolean;
}

/**
 * Completes and checks a declaration. Throws if a setting is invalid, if neither formula is given, or if the start values break the
 * zero-start rule: of the factors in `product`, exactly one starts at zero, and it is trained.
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
  const { rank = 8, alpha = rank, dropout = 0 } = spec;
  if (typeof spec.name !== "string" || spec.name === "")
    refuse("defineMethod: name", spec.name, "name", 'one, e.g. "mine"');
  checkNotNull(spec.name, spec);
  checkSettings(spec.name, rank, alpha, dropout);
  checkRate(spec.name, spec.learningRate);
  checkCommon(spec.name, spec);
  const declared = Object.entries<FactorSpec>(spec.factors);
  const factors = Object.fromEntries(
    declared.map(([name, factor]): [string, Factor] => [name, { ...FACTOR, ...factor }]),
  ) as { [K in F]: Factor };
  if (spec.forward === undefined && spec.lowRank === undefined) {
    throw new Error(`method ${spec.name} has no formula: give forward(factors, call) or lowRank(factors)`);
  }
  for (const [name, { rate }] of declared) checkRate(`${spec.name}: factor ${name}`, rate, "rate");
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
    trainedTokens: spec.trainedTokens ?? [],
    learningRate: spec.learningRate ?? DEFAULT_LEARNING_RATE,
    factors,
    products: productsOf(spec.product ?? (Object.keys(factors) as F[])),
    seeded: spec.seeded ?? declared.some(([, { bySeed }]) => bySeed === true),
    recipe: spec.recipe ?? { method: spec.name, options: {} },
    ...pick(spec, "forward"),
    ...pick(spec, "lowRank"),
    ...pick(spec, "prefix"),
    ...pick(spec, "prompt"),
    ...pick(spec, "prepare"),
  };
  checkDropout(method);
  checkFactors(method);
  checkZeroStart(method);
  return method;
}

/** The defaults of a factor. */
const FACTOR = { tie: "none", trained: true, rate: 1, bySeed: false } as const;

/** Throws for dropout of a method that reads no input, which would have no effect. */
function checkDropout(method: Method): void {
  const { name, dropout, factors } = method;
  const reads = Object.keys(factors).length > 0 && method.prefix === undefined && method.prompt === undefined;
  if (dropout > 0 && !reads)
    throw new RangeError(
      `${name}: dropout ${dropout} given, and the method reads no input whose elements could be dropped; leave it out`,
    );
}

function productsOf<F extends string>(given: readonly F[] | readonly (readonly F[])[]): (readonly F[])[] {
  const lists = given.filter((one): one is readonly F[] => typeof one !== "string");
  return given.length === 0 ? [] : lists.length > 0 ? lists : [given as readonly F[]];
}

/** An object with this field alone; an empty one if the field is undefined. */
function pick<T extends object, K extends keyof T>(from: T, field: K): Partial<Pick<T, K>> {
  return from[field] === undefined ? {} : ({ [field]: from[field] } as Pick<T, K>);
}

/** Returns y + scale · B(A x). */
export function lowRankForward({ A, B }: LowRank, { x, y, scale, shared }: Call): Tensor {
  const hidden = shared(() => x.matmul(A.transpose()));
  return y.add(hidden.matmul(scaled(B, scale).transpose()));
}

export function scaled(t: Tensor, by: number): Tensor {
  return by === 1 ? t : t.mul(by);
}

/** Whether a number is usable as a scale in f32: its magnitude is between 1e-20 and 1e20, far from rounding to 0 or infinity. */
export function isScale(value: number): boolean {
  return typeof value === "number" && Math.abs(value) >= 1e-20 && Math.abs(value) <= 1e20;
}

/** The outline of a specification, for messages. */
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

/** Throws if an option is null, as of JSON: that is neither a value nor an option that is left out. */
export function checkNotNull(name: string, options: object): void {
  const [key] = Object.entries(options).find(([, value]) => value === null) ?? [];
  if (key !== undefined) throw new TypeError(`${name}: ${key} null given; leave it out, or give a value`);
}

/** Checks the settings that every method has, except those that `checkSettings` checks. */
function checkCommon(
  name: string,
  { scaling, bias, modulesToSave, trainedTokens, ...patterns }: CommonOptions,
): void {
  if (trainedTokens !== undefined) checkTokens(`${name}: trainedTokens`, trainedTokens);
  if (scaling !== undefined) checkName(`${name}: scaling`, scaling, Object.keys(SCALINGS) as Scaling[]);
  if (bias !== undefined) checkName(`${name}: bias`, bias, ["none", "adapted", "others", "all"]);
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

/** The names of the fields of `CommonOptions`. */
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
  "trainedTokens",
];

function checkRate(name: string, rate: number | undefined, what = "learningRate"): void {
  if (rate !== undefined && !(Number.isFinite(rate) && rate > 0))
    throw new RangeError(
      `${name}: ${what} ${describeArgument(rate)} given; expected a finite number above 0`,
    );
}
