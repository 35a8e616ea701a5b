/** Reads rotary positions from a config.json: base, fraction, and kind of scaling. */
import type { Architecture } from "./architectures.ts";
import type { Fields } from "./fields.ts";
import type { RopeConfig, RopeScaling } from "./rope.ts";

type RopeArchitecture = Pick<Architecture, "partialRotary" | "ropeTypes" | "localTheta">;

/** v5 has one object, `rope_parameters`; v4 has `rope_theta` and `rope_scaling`, older files `type` for `rope_type`. */
export function ropeOf(
  f: Fields,
  headDim: number,
  maxPositions: number,
  { partialRotary: partial, ropeTypes, localTheta }: RopeArchitecture,
  theta: number,
): RopeConfig {
  const all = f.has("rope_parameters") ? f.object("rope_parameters") : null;
  const v5 = localTheta !== null && all?.has("full_attention") ? all.object("full_attention") : all;
  const scaled = v5 ?? (f.has("rope_scaling") ? f.object("rope_scaling") : null);
  const partialNames = ["partial_rotary_factor", "rotary_percentage", "rope_percentage"];
  const holder = v5?.find(partialNames) === undefined ? f : v5;
  const fraction = holder.positive(partialNames, partial ?? 1);
  const dim = Math.floor(headDim * fraction);
  if (fraction > 1 || dim < 2 || dim % 2 !== 0 || (partial === null && fraction !== 1)) {
    const name = holder.find(partialNames);
    if (name === undefined) f.fail("head_dim", "an even size, for rotary positions");
    holder.fail(
      name,
      partial === null ? "1 for this architecture" : `a fraction that rotates an even part of ${headDim}`,
    );
  }
  const base = thetaOf(v5?.has("rope_theta") ? v5 : f, theta);
  const scaling: RopeScaling = scaled ? scalingOf(scaled, f, dim, maxPositions) : { type: "default" };
  if (ropeTypes !== null && !ropeTypes.includes(scaling.type))
    scaled?.fail(typeName(scaled), `one of ${ropeTypes.join(", ")} for this architecture`);
  if (scaling.type === "yarn" && base === 1)
    scaled?.fail("rope_type", "another type: yarn needs a rope_theta above 1");
  return { theta: base, dim, scaling };
}

/** The rotary positions that layers with a window have for themselves: v5 nests them in `rope_parameters`, v4 has their base. */
export function localRopeOf(f: Fields, dim: number, theta: number | null): RopeConfig | null {
  if (theta === null) return null;
  const all = f.has("rope_parameters") ? f.object("rope_parameters") : null;
  const own = all?.has("sliding_attention") ? all.object("sliding_attention") : null;
  if (own && own.text(["rope_type"], "default") !== "default")
    own.fail("rope_type", "default for layers with a window");
  const [holder, name] = own?.has("rope_theta") ? [own, "rope_theta"] : [f, "rope_local_base_freq"];
  return { theta: thetaOf(holder, theta, [name]), dim, scaling: { type: "default" } };
}

function thetaOf(f: Fields, fallback: number, names = ["rope_theta", "rotary_base"]): number {
  const theta = f.positive(names, fallback);
  return theta >= 1 ? theta : f.fail(f.find(names)!, "a number from 1 on");
}

const typeName = (s: Fields): string => s.find(["rope_type", "type"]) ?? "rope_type";

function scalingOf(s: Fields, f: Fields, dim: number, maxPositions: number): RopeScaling {
  const type = s.text(["rope_type", "type"], s.has("factor") ? undefined : "default");
  const originalName = "original_max_position_embeddings";
  // Phi's files have the field outside of the object; without it, the context was not extended.
  const original = (s.has(originalName) ? s : f).size([originalName], maxPositions);
  switch (type) {
    case "default":
      return { type };
    case "linear":
      return { type, factor: s.positive(["factor"]) };
    case "dynamic":
      if (dim <= 2) s.fail("rope_type", "another type: dynamic needs more than 2 rotated elements");
      return { type, factor: s.positive(["factor"]), original: maxPositions };
    case "llama3": {
      const lowFrequencyFactor = s.positive(["low_freq_factor"]);
      const highFrequencyFactor = s.positive(["high_freq_factor"]);
      if (highFrequencyFactor <= lowFrequencyFactor)
        s.fail("high_freq_factor", `more than ${lowFrequencyFactor}`);
      return {
        type,
        factor: s.positive(["factor"]),
        lowFrequencyFactor,
        highFrequencyFactor,
        original,
      };
    }
    case "yarn":
      return yarnOf(s, original, maxPositions);
    case "longrope":
    case "su":
      return longropeOf(s, dim, original, maxPositions);
    default:
      return s.fail(typeName(s), "one of default, linear, dynamic, llama3, yarn, longrope");
  }
}

function yarnOf(s: Fields, original: number, maxPositions: number): RopeScaling {
  const factor = s.positive(["factor"], maxPositions / original);
  const mscale = (weight: number): number => (factor <= 1 ? 1 : 0.1 * weight * Math.log(factor) + 1);
  const both = Boolean(s.raw["mscale"]) && Boolean(s.raw["mscale_all_dim"]);
  const suggested = both
    ? mscale(s.positive(["mscale"])) / mscale(s.positive(["mscale_all_dim"]))
    : mscale(1);
  return {
    type: "yarn",
    factor,
    original,
    attentionFactor: s.positive(["attention_factor"], suggested),
    betaFast: s.positive(["beta_fast"], 32),
    betaSlow: s.positive(["beta_slow"], 1),
    truncate: s.flag("truncate", true),
  };
}

function longropeOf(s: Fields, dim: number, original: number, maxPositions: number): RopeScaling {
  const factor = s.positive(["factor"], maxPositions / original);
  if (original === 1) s.fail("original_max_position_embeddings", "more than 1");
  const suggested = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original));
  return {
    type: "longrope",
    original,
    attentionFactor: s.positive(["attention_factor"], suggested),
    shortFactor: s.positives("short_factor", dim / 2),
    longFactor: s.positives("long_factor", dim / 2),
  };
}
