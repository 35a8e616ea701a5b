/**
 * Op records: how to call each operation of the API, and on which inputs. One table (index.ts) drives the comparison of
 * every backend with the yardstick, forward and backward, and the check of every derivative against differences.
 */
import type { DType, Shape, Tensor } from "@tiedlora/core";
import type fc from "fast-check";
import { prng } from "../prng.ts";

/**
 * Where the values of an input are drawn from.
 * - `any`: signed, around 1. `positive`: from 0.3 up. `unit`: strictly inside (-1, 1).
 * - `away`: signed, at least 0.1 from every multiple of 1/4, so that no kink or jump is near (kinks and constants of the
 *   records are multiples of 1/4). `distinct`: no two values of one input are near each other, so that the largest value stays
 *   the largest when values move a little.
 * - `bool`; integers `[from, to)`.
 */
export type Domain =
  "any" | "positive" | "unit" | "away" | "distinct" | "bool" | readonly [from: number, to: number];

/** What one input of an operation may be. */
export interface InputSpec {
  readonly shape: Shape;
  readonly domain: Domain;
  /** The types that it may have; the first is the default. Derivative checks use f64 for floats. */
  readonly dtypes: readonly DType[];
  /** Not differentiated, like a weight or a table. */
  readonly fixed?: true;
  /** Never NaN or infinite, since attention need not read masked values. */
  readonly finite?: true;
}

/** One call of an operation on certain inputs. */
export interface OpCase {
  /** The call as a user would write it, for messages. */
  readonly call: string;
  readonly inputs: readonly InputSpec[];
  /** Types that a backend must have in addition to those of the inputs. */
  readonly needs?: readonly DType[];
  /** Applies the operation to tensors that match `inputs`. */
  readonly build: (inputs: readonly Tensor[]) => Tensor | readonly Tensor[];
}

/** Draws cases. An input has at most `limit` elements; with `zeros`, axes may have length 0. */
export type CaseSource = (options: {
  readonly limit: number;
  readonly zeros: boolean;
}) => fc.Arbitrary<OpCase>;

/** How an operation is called, on which inputs, and whether it is differentiable. */
export interface OpRecord {
  /** The name in the API: of a method of Tensor or of an exported function. */
  readonly name: string;
  readonly cases: CaseSource;
  /** Whether a gradient flows through the operation; if not, why. */
  readonly gradient: "yes" | { readonly none: string };
  /** Derivatives are checked in f64, or from f32 inputs to cover conversions (points and steps are exact in both). */
  readonly derivativeInputs?: "f32";
}

export const FLOATS: readonly DType[] = ["f32", "f16", "bf16"];
export const F32: readonly DType[] = ["f32"];
export const NUMBERS: readonly DType[] = ["f32", "f16", "bf16", "i32", "u32"];
export const INTEGERS: readonly DType[] = ["i32", "u32"];
export const BOOL: readonly DType[] = ["bool"];

export const isFloatSpec = (spec: InputSpec): boolean => spec.dtypes.includes("f32");

/** `n` seeded values for a tensor of `dtype`, as plain numbers. */
export function sample(domain: Domain, dtype: DType, n: number, seed: number): number[] {
  const random = prng(seed);
  const whole = dtype === "i32" || dtype === "u32";
  if (whole && typeof domain === "string") return Array.from({ length: n }, () => Math.floor(random() * 12));
  if (domain === "distinct") return distinct(n, random);
  return Array.from({ length: n }, () => sampleOne(domain, random));
}

function sampleOne(domain: Exclude<Domain, "distinct">, random: () => number): number {
  if (typeof domain === "object") return domain[0] + Math.floor(random() * (domain[1] - domain[0]));
  const u = random();
  switch (domain) {
    case "any":
      return 4 * u - 2;
    case "positive":
      return 0.3 + 1.7 * u;
    case "unit":
      return 1.8 * u - 0.9;
    case "away":
      return Math.floor(u * 16) / 4 - 2 + 0.125 + (random() - 0.5) * 0.05;
    case "bool":
      return u < 0.5 ? 0 : 1;
  }
}

/** The points of a grid, with some jitter, in random order. */
function distinct(n: number, random: () => number): number[] {
  const step = Math.min(0.0625, 4 / Math.max(n, 1));
  const grid = Array.from(
    { length: n },
    (_, i) => (i - n / 2) * step + step * (0.5 + (random() - 0.5) * 0.1),
  );
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [grid[i], grid[j]] = [grid[j]!, grid[i]!];
  }
  return grid;
}
