/**
 * Rotary positions: the frequencies under each kind of scaling, and the tables of cosines and sines.
 * Formulas: transformers' modeling_rope_utils; RoFormer (arXiv 2104.09864), YaRN (2309.00071), LongRoPE (2402.13753).
 */

export type RopeScaling =
  | { readonly type: "default" }
  | { readonly type: "linear"; readonly factor: number }
  /** NTK-aware; the base grows with the length of the sequence once the length exceeds `original`. */
  | { readonly type: "dynamic"; readonly factor: number; readonly original: number }
  | {
      readonly type: "llama3";
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      readonly original: number;
    }
  | {
      readonly type: "yarn";
      readonly factor: number;
      readonly original: number;
      readonly attentionFactor: number;
      readonly betaFast: number;
      readonly betaSlow: number;
      readonly truncate: boolean;
    }
  | {
      readonly type: "longrope";
      readonly original: number;
      readonly attentionFactor: number;
      readonly shortFactor: readonly number[];
      readonly longFactor: readonly number[];
    };

/** Rotary positions: base, rotated elements, scaling. */
export interface RopeConfig {
  readonly theta: number;
  /** The number of elements of each head that are rotated, beginning with the first; even. */
  readonly dim: number;
  readonly scaling: RopeScaling;
}

interface Frequencies {
  /** Radians per position, [dim / 2]. */
  readonly perPosition: Float64Array;
  /** Multiplies both cosines and sines. */
  readonly attentionFactor: number;
}

const plain = (theta: number, dim: number): Float64Array =>
  Float64Array.from({ length: dim / 2 }, (_, i) => theta ** ((-2 * i) / dim));

type Scale<T extends RopeScaling["type"]> = (
  scaling: Extract<RopeScaling, { type: T }>,
  theta: number,
  dim: number,
  length: number,
) => Float64Array;

const SCALE: { readonly [T in RopeScaling["type"]]: Scale<T> } = {
  default: (_scaling, theta, dim) => plain(theta, dim),
  linear: ({ factor }, theta, dim) => plain(theta, dim).map((f) => f / factor),
  dynamic: ({ factor, original }, theta, dim, length) => {
    const stretch = (factor * Math.max(length, original)) / original - (factor - 1);
    return plain(theta * stretch ** (dim / (dim - 2)), dim);
  },
  llama3: (s, theta, dim) =>
    plain(theta, dim).map((f) => {
      const turns = (s.original * f) / (2 * Math.PI); // within the context of the original training
      const smooth = (turns - s.lowFrequencyFactor) / (s.highFrequencyFactor - s.lowFrequencyFactor);
      const kept = Math.min(1, Math.max(0, smooth));
      return kept * f + ((1 - kept) * f) / s.factor;
    }),
  yarn: (s, theta, dim) => {
    const dimOfTurns = (turns: number): number =>
      (dim * Math.log(s.original / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
    const [fast, slow] = [dimOfTurns(s.betaFast), dimOfTurns(s.betaSlow)];
    const low = Math.max(s.truncate ? Math.floor(fast) : fast, 0);
    const high = Math.min(s.truncate ? Math.ceil(slow) : slow, dim - 1);
    const width = high === low ? 0.001 : high - low;
    return plain(theta, dim).map((f, i) => {
      const kept = 1 - Math.min(1, Math.max(0, (i - low) / width));
      return kept * f + ((1 - kept) * f) / s.factor;
    });
  },
  longrope: (s, theta, dim, length) => {
    const factors = length > s.original ? s.longFactor : s.shortFactor;
    return plain(theta, dim).map((f, i) => f / factors[i]!);
  },
};

/** Frequencies for a sequence of `length` positions. */
export function ropeFrequencies({ theta, dim, scaling }: RopeConfig, length: number): Frequencies {
  const scale = SCALE[scaling.type] as Scale<typeof scaling.type>;
  const attentionFactor = "attentionFactor" in scaling ? scaling.attentionFactor : 1;
  return { perPosition: scale(scaling, theta, dim, length), attentionFactor };
}

/** Whether a model's rotary frequencies depend on the length of the sequence. */
export function lengthMatters({ rope }: { readonly rope: RopeConfig | null }): boolean {
  return rope?.scaling.type === "dynamic" || rope?.scaling.type === "longrope";
}

/** Whether sequences of these two lengths have different frequencies. */
export function frequenciesDiffer({ scaling }: RopeConfig, before: number, after: number): boolean {
  if (scaling.type === "dynamic")
    return Math.max(before, scaling.original) !== Math.max(after, scaling.original);
  return scaling.type === "longrope" && before > scaling.original !== after > scaling.original;
}

export interface RopeTables {
  /** [positions, dim / 2], row-major. */
  readonly cos: Float32Array;
  readonly sin: Float32Array;
}

/**
 * Cosines and sines for the given positions, computed in float64 and rounded once.
 * @param length the sequence's length so far, on which some scalings depend.
 */
export function ropeTables(rope: RopeConfig, positions: ArrayLike<number>, length: number): RopeTables {
  const { perPosition, attentionFactor } = ropeFrequencies(rope, length);
  const half = perPosition.length;
  const cos = new Float32Array(positions.length * half);
  const sin = new Float32Array(positions.length * half);
  for (let row = 0; row < positions.length; row++) {
    for (let i = 0; i < half; i++) {
      const angle = positions[row]! * perPosition[i]!;
      cos[row * half + i] = Math.cos(angle) * attentionFactor;
      sin[row * half + i] = Math.sin(angle) * attentionFactor;
    }
  }
  return { cos, sin };
}
