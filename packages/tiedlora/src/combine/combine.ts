/** Combines adapters into one LoRA adapter: their weighted sum, exactly or at a rank, or merged element by element. */
import { concat, key, type Tensor } from "@tiedlora/core";
import { checkName, checkOptions } from "@tiedlora/core/arguments";
import type * as nn from "@tiedlora/nn";
import { type Adapter, adaptersOf, createAdapter } from "../adapter/adapter.ts";
import { leadingSingularVectors } from "../linalg/svd.ts";
import { scaled, type LowRank } from "../method.ts";
import { methods } from "../methods/index.ts";
import { ELEMENTWISE, type Elementwise } from "./elementwise.ts";
import { matrixOf, type Part, productOf } from "./update.ts";

/** How adapters are combined, and the name of the result. */
export interface CombineOptions {
  /** The name of the new adapter. */
  readonly name: string;
  /**
   * - `cat` (default): concatenates all A along the rows and all B along the columns. Exactly the sum; its rank is the sum of the
   *   ranks.
   * - `linear`: sums the A and the B themselves. Cheaper, but not the sum of the updates where there are several adapters; all
   *   ranks must be equal.
   * - `svd`: the best approximation of the sum at `rank`, of adapters of any methods whose updates are linear.
   * - `magnitude`, `ties`, `dare`, `dare-ties`: the best approximation at `rank` of a merge element by element, which keeps a share
   *   `density` of each update's elements; as peft's `magnitude_prune_svd`, `ties_svd`, `dare_linear_svd` and `dare_ties_svd`.
   */
  readonly how?: CombineHow;
  /** The rank for ways that approximate; an error with the others. Default: the largest rank among the adapters. */
  readonly rank?: number;
  /** The share of the elements that is kept, above 0 and at most 1, for ways element by element. Default: 0.5. */
  readonly density?: number;
  /** The seed of what `dare` and `dare-ties` drop. Default: 0. */
  readonly seed?: number;
  /** Whether the new adapter takes part when the model runs. Default: true. */
  readonly active?: boolean;
}

/** A way to combine adapters. */
export type CombineHow = "cat" | "linear" | "svd" | Elementwise;

/** An adapter in the form of LoRA, and how well it approximates what it stands for. */
export interface Approximated {
  readonly adapter: Adapter;
  /** By module: ‖ΔW - B A‖ / ‖ΔW‖ in the Frobenius norm; 0 where ΔW is zero, or the form is exact. */
  readonly errors: ReadonlyMap<string, number>;
}

/** All ways, by name. */
export const COMBINE_NAMES: readonly CombineHow[] = [
  "cat",
  "linear",
  "svd",
  "magnitude",
  "ties",
  "dare",
  "dare-ties",
];

/**
 * Adds an adapter whose update is made from those of the named adapters, by default their sum Σ weight · update; weights may have any
 * sign. The named adapters stay on the model unchanged, and those that are active act beside the new one: make them inactive. Throws for
 * methods whose update has no form that the way needs, and for adapters that replace parameters of the model.
 */
export async function combine(
  model: nn.Module,
  weights: Readonly<Record<string, number>>,
  options: CombineOptions,
): Promise<Adapter> {
  return (await combineMeasured(model, weights, options)).adapter;
}

/** As `combine`, with the errors of an approximation. The LoRA of one adapter of any method is that of `{ name: 1 }` and `how: "svd"`. */
export async function combineMeasured(
  model: nn.Module,
  weights: Readonly<Record<string, number>>,
  options: CombineOptions,
): Promise<Approximated> {
  const names = ["name", "how", "rank", "density", "seed", "active"];
  const { name, how = "cat", active = true } = checkOptions("combine", options, '{ name: "both" }', names);
  checkWays(how, options);
  const set = adaptersOf(model);
  set.checkName(name);
  const parts = partsOf(model, weights);
  const factors = new Map<string, LowRank>();
  const errors = new Map<string, number>();
  for (const [path, list] of parts) {
    const { A, B, error } = await combined(how, list, options, path);
    factors.set(path, { A, B });
    errors.set(path, error);
  }
  const ranks = Object.fromEntries([...factors].map(([path, { A }]) => [path, A.shape[0]!]));
  const alphas = ranks; // so that the scale is 1: each adapter's scale is already in its B
  const target = [...factors.keys()];
  const method = methods.lora({ target, rank: 1, rankPattern: exact(ranks), alphaPattern: exact(alphas) });
  const adapter = createAdapter(model, method, { name, active, blank: true });
  for (const [path, { A, B }] of factors) {
    adapter.parameter(`${path}.A`).set(await A.data());
    adapter.parameter(`${path}.B`).set(await B.data());
  }
  return { adapter: adapter.attach(), errors };
}

function checkWays(how: CombineHow, { rank, density, seed }: CombineOptions): void {
  checkName("combine: how", how, COMBINE_NAMES);
  if (rank !== undefined && (!Number.isSafeInteger(rank) || rank < 1))
    throw new Error(`combine: rank is ${JSON.stringify(rank)}; give a whole number of at least 1`);
  if (rank !== undefined && (how === "cat" || how === "linear"))
    throw new Error(
      `combine: rank ${rank} is given, but "${how}" determines the rank itself; give how: "svd", or no rank`,
    );
  for (const [what, value] of Object.entries({ density, seed }))
    if (value !== undefined && !(how in ELEMENTWISE))
      throw new Error(
        `combine: ${what} is for ${Object.keys(ELEMENTWISE).join(", ")}, and "${how}" has none`,
      );
  if (density !== undefined && !(density > 0 && density <= 1))
    throw new Error(`combine: density is ${String(density)}; give a number above 0, at most 1`);
  if (seed !== undefined && !Number.isSafeInteger(seed))
    throw new Error(`combine: seed is ${String(seed)}; give a whole number`);
}

/** The updates of the named adapters, by module. Throws if a name or weight is wrong, or there is an adapter that has more than updates. */
function partsOf(model: nn.Module, weights: Readonly<Record<string, number>>): Map<string, Part[]> {
  checkOptions("combine: weights", weights, "{ french: 0.7, formal: 0.3 }");
  const odd = Object.entries(weights).find(([, weight]) => !Number.isFinite(weight));
  if (odd !== undefined)
    throw new Error(`combine: the weight of "${odd[0]}" is ${String(odd[1])}; give a finite number`);
  const set = adaptersOf(model);
  const adapters = Object.entries(weights).map(([one, weight]) => ({ adapter: set.get(one), weight }));
  if (adapters.length === 0) throw new Error("combine: no adapter given; name at least one with its weight");
  const replacing = adapters.find(({ adapter }) => adapter.plan.replaced.length > 0);
  if (replacing !== undefined)
    throw new Error(
      `combine: "${replacing.adapter.name}" replaces parameters of the model, which have no weighted sum`,
    );
  const tokens = adapters.find(({ adapter }) => adapter.plan.tokens !== null);
  if (tokens !== undefined)
    throw new Error(
      `combine: "${tokens.adapter.name}" trains rows of ${tokens.adapter.plan.tokens!.site.path}, which LoRA has no place for`,
    );
  const parts = new Map<string, Part[]>();
  for (const { adapter, weight } of adapters) {
    for (const [host, layer] of adapter.layers()) {
      const { path } = layer.member;
      parts.set(path, [...(parts.get(path) ?? []), { host, layer, weight }]);
    }
  }
  return parts;
}

/** The values with their keys turned into patterns, each of which matches exactly one path. */
function exact(values: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(
    Object.entries(values).map(([path, value]) => [`^${path.replaceAll(".", "\\.")}$`, value]),
  );
}

type Result = LowRank & { readonly error: number };

async function combined(
  how: CombineHow,
  parts: readonly Part[],
  { rank, density = 0.5, seed = 0 }: CombineOptions,
  path: string,
): Promise<Result> {
  if (how === "cat") return { ...concatenated(parts), error: 0 };
  if (how === "linear") return { ...summed(parts, path), error: 0 };
  const wanted = rank ?? Math.max(...parts.map(({ layer }) => layer.plan.dims.rank));
  const matrices = await Promise.all(parts.map(matrixOf));
  const [{ shape, device }] = matrices as [Tensor];
  const size = shape as readonly [number, number];
  if (how === "svd") {
    const update = matrices.map((matrix, i) => scaled(matrix, parts[i]!.weight)).reduce((a, b) => a.add(b));
    return approximated((await update.data()) as Float32Array, size, wanted, device!);
  }
  const updates = await Promise.all(
    matrices.map(async (matrix, i) => ({
      values: (await matrix.data()) as Float32Array,
      weight: parts[i]!.weight,
    })),
  );
  const merged = ELEMENTWISE[how](updates, { density, key: key(seed).fold(path) });
  return approximated(merged, size, wanted, device!);
}

const concatenated = (parts: readonly Part[]): LowRank => {
  const products = parts.map(productOf);
  return {
    A: concat(products.map(({ A }) => A)),
    B: concat(
      products.map(({ B }, i) => scaled(B, parts[i]!.weight)),
      1,
    ),
  };
};

/** As in peft: both A and B are scaled by √|weight|, and B also by the sign of the weight. */
function summed(parts: readonly Part[], path: string): LowRank {
  const products = parts.map(productOf);
  const ranks = products.map(({ A }) => A.shape[0]!);
  if (new Set(ranks).size > 1)
    throw new Error(
      `combine: ranks ${ranks.join(", ")} at ${path}; "linear" needs equal ones, use "cat" or "svd"`,
    );
  const total = (of: (product: LowRank, weight: number) => Tensor): Tensor =>
    products.map((product, i) => of(product, parts[i]!.weight)).reduce((a, b) => a.add(b));
  return {
    A: total(({ A }, weight) => scaled(A, Math.sqrt(Math.abs(weight)))),
    B: total(({ B }, weight) => scaled(B, Math.sign(weight) * Math.sqrt(Math.abs(weight)))),
  };
}

/** The best approximation of a matrix [out, in] at a rank, and its relative error. */
function approximated(
  update: Float32Array,
  [out, width]: readonly [number, number],
  wanted: number,
  device: NonNullable<Tensor["device"]>,
): Result {
  const rank = Math.min(wanted, out, width);
  const { left, values, right } = leadingSingularVectors(update, out, width, rank);
  const B = left.map((value, i) => value * values[i % rank]!);
  return {
    A: device.tensor(right, { shape: [rank, width] }),
    B: device.tensor(B, { shape: [out, rank] }),
    error: relativeError(update, B, right, rank),
  };
}

/** ‖update - B A‖ / ‖update‖. */
function relativeError(update: Float32Array, B: Float32Array, A: Float32Array, rank: number): number {
  const width = A.length / rank;
  let [error, size] = [0, 0];
  const row = new Float64Array(width);
  for (let i = 0; i < B.length / rank; i++) {
    row.set(update.subarray(i * width, (i + 1) * width));
    for (const value of row) size += value * value;
    for (let r = 0; r < rank; r++) {
      const factor = B[i * rank + r]!;
      for (let j = 0; j < width; j++) row[j]! -= factor * A[r * width + j]!;
    }
    for (const value of row) error += value * value;
  }
  return size === 0 ? 0 : Math.sqrt(error / size);
}
