/**
 * Tied-LoRA (Renduchintala, Konuk, Kuchaiev 2024, arXiv 2311.09578): z = W x + s · v ⊙ (B (u ⊙ (A x))), where all layers share
 * one pair A, B, and each layer has its own u and v. The choice of the trained factors among the four, and of the ties of A and B,
 * spans a family of methods; LoRA, VeRA and the paper's TL1 to TL6 are members of it.
 */
import { describeValue, type Tensor } from "@tiedlora/core";
import { init, type Init } from "../init.ts";
import {
  defineMethod,
  scaled,
  type Call,
  type CommonOptions,
  type FactorSpec,
  type PlainMethod,
  type Tie,
} from "../method.ts";
import { recipe } from "./recipe.ts";

/** A factor of Tied-LoRA, named as in the paper. */
export type FactorName = "v" | "B" | "u" | "A";
/** The factors in the order of the formula, from the output to the input. */
export const FACTOR_NAMES: readonly FactorName[] = ["v", "B", "u", "A"];

export interface TiedLoraOptions extends CommonOptions {
  /** Which factors are trained; at least one. */
  readonly trained: readonly FactorName[];
  /** How A and B are shared: true (by all layers), false (not at all), another tie, or a tie for each factor. Default: true. */
  readonly tied?: boolean | Tie | FactorTies;
  /**
   * Start values that differ from the defaults. By default A and B are normal with variance 1/columns, u and v are one, and the
   * first trained factor of B, v, A, u is zero (unless a factor is given a start of zero).
   */
  readonly init?: Readonly<Partial<Record<FactorName, Init>>>;
  /** Vectors to keep although they are frozen at one, so that they can be unfrozen later. By default such vectors are left out. */
  readonly keep?: readonly ("u" | "v")[];
  /** The method's name in messages and files. Default: "tied-lora". */
  readonly name?: string;
}

export type FactorTies = Readonly<Partial<Record<FactorName, Tie>>>;

/** Declares a member of the family; `rate` returns its learning rate, from its name and the factors that it trains. */
export function familyMember(
  options: TiedLoraOptions,
  rate: (name: string, trained: readonly FactorName[]) => number,
): PlainMethod<FactorName> {
  const { trained, tied = true, keep = [], name = "tied-lora", init: given = {}, ...common } = options;
  checkTrained(name, trained);
  const ties = tiesOf(tied);
  const start = startOf(trained, given);
  const exists = (factor: FactorName): boolean =>
    factor === "A" ||
    factor === "B" ||
    keep.includes(factor) ||
    trained.includes(factor) ||
    !isOne(start[factor]);
  const present = FACTOR_NAMES.filter(exists);
  const specs = present.map((factor): [string, FactorSpec] => [
    factor,
    {
      shape: SHAPES[factor],
      init: start[factor],
      tie: ties[factor] ?? "none",
      trained: trained.includes(factor),
    },
  ]);
  return defineMethod<FactorName>({
    ...common,
    name,
    learningRate: rate(name, trained),
    factors: Object.fromEntries(specs) as Record<FactorName, FactorSpec>,
    product: present,
    recipe: recipe("tied-lora", { ...options, init: undefined, keep: present.filter(isVector) }),
    forward: tiedForward,
    lowRank: (f) => {
      const { A, B, u, v }: Factors = f;
      return { A: u ? A.mul(u.unsqueeze(1)) : A, B: v ? B.mul(v.unsqueeze(1)) : B };
    },
  });
}

type Factors = Readonly<Pick<Record<FactorName, Tensor>, "A" | "B"> & Partial<Record<FactorName, Tensor>>>;

/**
 * The forward formula. u scales the rows of A, and v those of B, instead of the activations: this is equal in real arithmetic,
 * needs smaller products, and uses the same numbers as an export as LoRA. In a fused target, B and v are the rows of one module,
 * while A x is computed once for all modules.
 */
function tiedForward({ A, B, u, v }: Factors, { x, y, scale, shared }: Call): Tensor {
  const hidden = shared(() => x.matmul((u ? A.mul(u.unsqueeze(1)) : A).transpose()));
  const rows = v ? B.mul(scaled(v, scale).unsqueeze(1)) : scaled(B, scale);
  return y.add(hidden.matmul(rows.transpose()));
}

const SHAPES = {
  v: ["out"],
  B: ["out", "rank"],
  u: ["rank"],
  A: ["rank", "in"],
} as const;

function isVector(factor: FactorName): boolean {
  return factor === "u" || factor === "v";
}

function tiesOf(tied: boolean | Tie | FactorTies): FactorTies {
  if (typeof tied === "boolean") return tied ? { A: "all", B: "all" } : {};
  if (typeof tied === "object" && !("blocks" in tied) && !("groups" in tied)) return tied;
  return { A: tied, B: tied };
}

/** The order of factors by which the default zero start is chosen: the first one that is trained starts at zero. */
const ZERO_ORDER: readonly FactorName[] = ["B", "v", "A", "u"];

function startOf(
  trained: readonly FactorName[],
  given: Readonly<Partial<Record<FactorName, Init>>>,
): Record<FactorName, Init> {
  const defaults = { v: init.ones(), B: init.normal(), u: init.ones(), A: init.normal() };
  const givenZero = Object.values(given).some((one) => one.zero);
  const zero = givenZero ? undefined : ZERO_ORDER.find((name) => trained.includes(name));
  return { ...defaults, ...(zero && { [zero]: init.zeros() }), ...given };
}

function isOne(start: Init): boolean {
  return start.label === "1";
}

function checkTrained(name: string, trained: readonly FactorName[] | undefined): void {
  if (!Array.isArray(trained))
    throw new TypeError(
      `${name}: trained: ${describeValue(trained)}; expected a list of ${FACTOR_NAMES.join(", ")}, at least one`,
    );
  const unknown = trained.filter((factor) => !FACTOR_NAMES.includes(factor));
  if (unknown.length > 0) {
    throw new Error(
      `${name}: trained factors ${unknown.join(", ")} given; expected some of ${FACTOR_NAMES.join(", ")}`,
    );
  }
  if (new Set(trained).size !== trained.length)
    throw new Error(`${name}: a factor is given twice in ${trained.join(", ")}`);
  if (trained.length === 0)
    throw new Error(`${name}: nothing is trained; give at least one of ${FACTOR_NAMES.join(", ")}`);
}
