/**
 * Rows of the input embedding that any method can train beside its own target (`trainedTokens`): what is added to the vectors of a few
 * tokens, as one more factor of the adapter. As a method of its own it is methods/trained-tokens.ts.
 */
import { init } from "../init.ts";
import type { LinearInfo } from "../linear-info.ts";
import { splitPath } from "../match.ts";
import type { Factor, FactorTensors, LowRank, Method, Place } from "../method.ts";
import { INPUT_EMBEDDINGS } from "../methods/input-embedding.ts";
import type { FactorPlan, SitePlan } from "./plan.ts";

/** The name of the factor: what is added to the rows, [width, tokens]. */
export const TOKENS = "tokens";

/** The part of an adapter's formulas that a layer evaluates. */
export type Formulas = Pick<Method, "name" | "forward" | "lowRank" | "prefix" | "prompt">;

/** The formula of the rows: the update of an embedding [width, rows] that is zero but for the given rows. */
export function tokenFormulas({ name, trainedTokens }: Pick<Method, "name" | "trainedTokens">): Formulas {
  const lowRank = (factors: FactorTensors, { dims }: Place): LowRank => {
    const rows = factors[TOKENS]!;
    const ids = rows.device!.tensor(Int32Array.from(trainedTokens));
    return { A: ids.oneHot(dims.in), B: rows };
  };
  return { name, lowRank };
}

/** Plans the rows for a model with these modules; null if the method trains none. Throws if the model has no such rows. */
export function planTokens(
  modules: readonly LinearInfo[],
  { name, trainedTokens, factors }: Method,
  sites: readonly SitePlan[],
): SitePlan | null {
  if (trainedTokens.length === 0) return null;
  const found = modules.find(({ path, kind }) => kind === "embedding" && INPUT_EMBEDDINGS.includes(splitPath(path)[1])); // prettier-ignore
  if (found === undefined)
    throw new Error(
      `${name}: trainedTokens is given, and the model has no input embedding (${INPUT_EMBEDDINGS.join(", ")}) that could be adapted; leave it out`,
    );
  const { path, in: rows, out } = found;
  const beyond = trainedTokens.find((id) => id >= rows);
  if (beyond !== undefined)
    throw new RangeError(
      `${name}: trainedTokens has ${beyond}, and ${path} has ${rows} rows; give ids below ${rows}`,
    );
  if (TOKENS in factors || sites.some(({ site }) => site.members.some((one) => one.path === path)))
    throw new Error(
      `${name}: trainedTokens is given, and the method's own target has ${path} too; leave one of them out`,
    );
  const spec: Factor = {
    shape: ["out", trainedTokens.length],
    init: init.zeros(),
    tie: "none",
    trained: true,
    rate: 1,
    bySeed: false,
  };
  const site = { path, type: path, layer: null, in: rows, out, members: [{ ...found, offset: 0 }] };
  const dims = { in: rows, out, rank: trainedTokens.length, layers: 1, types: 1, divisor: 1 };
  const at = `${path}.${TOKENS}`;
  const plan: FactorPlan = { factor: TOKENS, spec, shape: [out, trainedTokens.length], path: at, aliases: [at], sites: [site] }; // prettier-ignore
  const planned = new Map([[TOKENS, plan]]);
  return { site, dims, alpha: dims.rank, scale: 1, layer: 0, type: 0, factors: planned };
}
