/** Combines several adapters into one LoRA adapter, whose update is the weighted sum of theirs. */
import { concat, type Tensor } from "@tiedlora/core";
import { checkOptions } from "@tiedlora/core/arguments";
import type * as nn from "@tiedlora/nn";
import { type Adapter, createAdapter } from "./adapter/adapter.ts";
import { adaptersOf } from "./adapter/adapter.ts";
import { leadingSingularVectors } from "./linalg/svd.ts";
import { scaled, type LowRank } from "./method.ts";
import { methods } from "./methods/index.ts";
import type { AdapterLayer } from "./adapter/layer.ts";

/** How adapters are summed, and the name of the sum. */
export interface CombineOptions {
  /** The name of the new adapter. */
  readonly name: string;
  /**
   * - `cat` (default): concatenates all A along the rows and all B along the columns. Exactly the sum; its rank is the sum of the
   *   ranks.
   * - `linear`: sums the A and the B themselves. Cheaper, but not the sum of the updates where there are several adapters; all
   *   ranks must be equal.
   * - `svd`: the best approximation of the sum at `rank`.
   */
  readonly how?: "cat" | "linear" | "svd";
  /** The rank for `svd`; an error with the others. Default: the largest rank among the adapters. */
  readonly rank?: number;
  /** Whether the new adapter takes part when the model runs. Default: true. */
  readonly active?: boolean;
}

interface Part extends LowRank {
  readonly weight: number;
}

/**
 * Adds an adapter whose update is Σ weight · update over the named adapters; weights may have any sign. The named adapters stay
 * on the model unchanged, and those that are active act beside the new one: make them inactive. Throws for methods whose update
 * is not a product B A, and for adapters that replace parameters of the model.
 */
export async function combine(
  model: nn.Module,
  weights: Readonly<Record<string, number>>,
  options: CombineOptions,
): Promise<Adapter> {
  const { name, how = "cat", active = true, rank } = checkOptions("combine", options, '{ name: "both" }');
  checkOptions("combine: weights", weights, "{ french: 0.7, formal: 0.3 }");
  if (!Object.hasOwn(COMBINE, how))
    throw new Error(`combine: how is ${JSON.stringify(how)}; give one of ${Object.keys(COMBINE).join(", ")}`);
  if (rank !== undefined && (!Number.isSafeInteger(rank) || rank < 1))
    throw new Error(`combine: rank is ${JSON.stringify(rank)}; give a whole number of at least 1`);
  if (rank !== undefined && how !== "svd")
    throw new Error(
      `combine: rank ${rank} is given, but "${how}" determines the rank itself; give how: "svd", or no rank`,
    );
  const odd = Object.entries(weights).find(([, weight]) => !Number.isFinite(weight));
  if (odd !== undefined)
    throw new Error(`combine: the weight of "${odd[0]}" is ${String(odd[1])}; give a finite number`);
  const set = adaptersOf(model);
  set.checkName(name);
  const adapters = Object.entries(weights).map(([one, weight]) => ({ adapter: set.get(one), weight }));
  if (adapters.length === 0) throw new Error("combine: no adapter given; name at least one with its weight");
  const replacing = adapters.find(({ adapter }) => adapter.plan.replaced.length > 0);
  if (replacing !== undefined)
    throw new Error(
      `combine: "${replacing.adapter.name}" replaces parameters of the model, which have no weighted sum`,
    );

  const parts = new Map<string, Part[]>();
  for (const { adapter, weight } of adapters) {
    for (const [, layer] of adapter.layers()) {
      const { path } = layer.member;
      parts.set(path, [...(parts.get(path) ?? []), partOf(layer, weight)]);
    }
  }
  const factors = new Map<string, LowRank>();
  for (const [path, list] of parts) factors.set(path, await COMBINE[how](list, rank, path));
  const ranks = Object.fromEntries([...factors].map(([path, { A }]) => [path, A.shape[0]!]));
  const alphas = ranks; // so that the scale is 1: each adapter's scale is already in its B
  const target = [...factors.keys()];
  const method = methods.lora({ target, rank: 1, rankPattern: exact(ranks), alphaPattern: exact(alphas) });
  const combined = createAdapter(model, method, { name, active, blank: true });
  for (const [path, { A, B }] of factors) {
    combined.parameter(`${path}.A`).set(await A.data());
    combined.parameter(`${path}.B`).set(await B.data());
  }
  return combined.attach();
}

function partOf(layer: AdapterLayer, weight: number): Part {
  const low = layer.lowRank();
  if (low !== null) return { A: low.A, B: scaled(low.B, layer.scale), weight };
  throw new Error(
    `combine: ${layer.owner.method.name} of "${layer.owner.name}" has no update of the form B A; only such updates have a sum that LoRA holds`,
  );
}

/** The values with their keys turned into patterns, each of which matches exactly one path. */
function exact(values: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(
    Object.entries(values).map(([path, value]) => [`^${path.replaceAll(".", "\\.")}$`, value]),
  );
}

type Combine = (parts: readonly Part[], rank: number | undefined, path: string) => LowRank | Promise<LowRank>;

const COMBINE: Readonly<Record<NonNullable<CombineOptions["how"]>, Combine>> = {
  cat: (parts) => ({
    A: concat(parts.map(({ A }) => A)),
    B: concat(
      parts.map(({ B, weight }) => scaled(B, weight)),
      1,
    ),
  }),
  linear: (parts, _rank, path) => {
    const ranks = parts.map(({ A }) => A.shape[0]!);
    if (new Set(ranks).size > 1)
      throw new Error(
        `combine: ranks ${ranks.join(", ")} at ${path}; "linear" needs equal ones, use "cat" or "svd"`,
      );
    // as in peft: both A and B are scaled by √|weight|, and B also by the sign of the weight
    const sum = (of: (part: Part) => Tensor): Tensor => parts.map(of).reduce((a, b) => a.add(b));
    return {
      A: sum(({ A, weight }) => scaled(A, Math.sqrt(Math.abs(weight)))),
      B: sum(({ B, weight }) => scaled(B, Math.sign(weight) * Math.sqrt(Math.abs(weight)))),
    };
  },
  svd: async (parts, rank) => {
    const update = parts.map(({ A, B, weight }) => scaled(B, weight).matmul(A)).reduce((a, b) => a.add(b));
    const [out = 0, width = 0] = update.shape;
    const wanted = Math.min(rank ?? Math.max(...parts.map(({ A }) => A.shape[0]!)), out, width);
    const { left, values, right } = leadingSingularVectors(await update.data(), out, width, wanted);
    const device = update.device!;
    const B = left.map((value, i) => value * values[i % wanted]!);
    return {
      A: device.tensor(right, { shape: [wanted, width] }),
      B: device.tensor(B, { shape: [out, wanted] }),
    };
  },
};
