/**
 * The decoder written as plain loops over numbers, straight from the papers: an independent statement of the computation of
 * each architecture. Slow, float64, one sequence at a time.
 */
import { ARCHITECTURES } from "../../src/architectures.ts";
import type { DecoderConfig } from "../../src/config.ts";
import { ropeFrequencies } from "../../src/rope.ts";

export type Weights = ReadonlyMap<
  string,
  { readonly shape: readonly number[]; readonly values: ArrayLike<number> }
>;

type Vector = number[];

const dot = (a: Vector, b: Vector): number => a.reduce((sum, x, i) => sum + x * b[i]!, 0);

const ERF = (x: number): number => {
  // the series of Abramowitz and Stegun 7.1.6, exact enough for |x| < 6
  let term = x;
  let sum = x;
  for (let n = 1; n < 200; n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
};

const ACTIVATIONS: Readonly<Record<DecoderConfig["activation"], (x: number) => number>> = {
  silu: (x) => x / (1 + Math.exp(-x)),
  gelu: (x) => (x / 2) * (1 + ERF(x / Math.SQRT2)),
  gelu_tanh: (x) => (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  relu: (x) => Math.max(0, x),
  relu2: (x) => Math.max(0, x) ** 2,
};

/** Logits [length][vocab] of one sequence. */
export function naiveLogits(config: DecoderConfig, weights: Weights, ids: readonly number[]): Vector[] {
  const { names, linear: layout, mlp } = ARCHITECTURES[config.modelType];
  const { heads, kvHeads, headDim, normEps, qkNorm } = config;

  const tensor = (path: string): Vector => Array.from(weights.get(path)!.values);
  const row = (path: string, i: number): Vector => {
    const width = weights.get(path)!.shape[1]!;
    return tensor(path).slice(i * width, (i + 1) * width);
  };
  const apply = (path: string, x: Vector): Vector => {
    const [rows, columns] = weights.get(`${path}.weight`)!.shape as [number, number];
    const w = tensor(`${path}.weight`);
    const bias = weights.has(`${path}.bias`) ? tensor(`${path}.bias`) : null;
    const inOut = layout === "conv1d" && path !== names.head;
    const out = inOut ? columns : rows;
    return Array.from({ length: out }, (_, o) => {
      let sum = bias?.[o] ?? 0;
      for (let i = 0; i < x.length; i++) sum += x[i]! * (inOut ? w[i * out + o]! : w[o * columns + i]!);
      return sum;
    });
  };
  const rms = (x: Vector, path: string): Vector => {
    const scale = 1 / Math.sqrt(dot(x, x) / x.length + normEps);
    return x.map((v, i) => v * scale * tensor(`${path}.weight`)[i]!);
  };
  const norm = (x: Vector, path: string): Vector => {
    if (config.norm === "rms") return rms(x, path);
    const mean = x.reduce((a, b) => a + b, 0) / x.length;
    const centred = x.map((v) => v - mean);
    const scale = 1 / Math.sqrt(dot(centred, centred) / x.length + normEps);
    const weight = tensor(`${path}.weight`).map((w) => (config.norm === "layer1p" ? 1 + w : w));
    const bias = weights.has(`${path}.bias`) ? tensor(`${path}.bias`) : x.map(() => 0);
    return centred.map((v, i) => v * scale * weight[i]! + bias[i]!);
  };
  const rotate = (x: Vector, position: number): Vector => {
    const rope = config.rope!;
    const { perPosition, attentionFactor } = ropeFrequencies(rope, ids.length);
    const half = rope.dim / 2;
    return x.map((v, i) => {
      if (i >= rope.dim) return v;
      const angle = position * perPosition[i % half]!;
      const other = i < half ? -x[i + half]! : x[i - half]!;
      return attentionFactor * (v * Math.cos(angle) + other * Math.sin(angle));
    });
  };

  const base = (name: string): string => `${names.base}.${name}`;
  let hidden = ids.map((id, t) => {
    const token = row(`${base(names.embed)}.weight`, id);
    return names.position === null
      ? token
      : token.map((v, i) => v + row(`${base(names.position!)}.weight`, t)[i]!);
  });
  for (let layer = 0; layer < config.layers; layer++) {
    const at = (name: string): string => base(`${names.layers}.${layer}.${name}`);
    const qkv = hidden.map((h) => {
      const x = norm(h, at(names.attentionNorm!));
      return names.qkv.flatMap((name) => apply(at(name), x));
    });
    const head = (t: number, offset: number, h: number, which: "q" | "k" | "v"): Vector => {
      let x = qkv[t]!.slice((offset + h) * headDim, (offset + h + 1) * headDim);
      if (which === "v") return x;
      if (qkNorm === "head") x = rms(x, at(which === "q" ? names.qNorm : names.kNorm));
      return config.rope && config.ropeLayers[layer]! ? rotate(x, t) : x;
    };
    const window = config.windows[layer] ?? Infinity;
    hidden = hidden.map((h, t) => {
      const seen = ids.map((_, s) => s).filter((s) => s <= t && t - s < window);
      const attended = Array.from({ length: heads }, (_, i) => {
        const kv = Math.floor((i * kvHeads) / heads);
        const q = head(t, 0, i, "q");
        const scores = seen.map((s) => dot(q, head(s, heads, kv, "k")) * config.attentionScales[layer]!);
        const max = Math.max(...scores);
        const exp = scores.map((s) => Math.exp(s - max));
        const total = exp.reduce((a, b) => a + b);
        return Array.from({ length: headDim }, (_unused, d) =>
          seen.reduce((sum, s, n) => sum + (exp[n]! / total) * head(s, heads + kvHeads, kv, "v")[d]!, 0),
        );
      }).flat();
      const y = apply(at(names.out), attended).map((v, i) => v + h[i]!);
      const x = norm(y, at(names.mlpNorm!));
      const activation = ACTIVATIONS[config.activation];
      const up = apply(at(names.up), x);
      const inner =
        mlp === "gated" ? apply(at(names.gate), x).map((g, i) => activation(g) * up[i]!) : up.map(activation);
      return apply(at(names.down), inner).map((v, i) => v + y[i]!);
    });
  }
  const output = config.tied
    ? new Map([...weights, [`${names.head}.weight`, weights.get(`${base(names.embed)}.weight`)!]])
    : weights;
  return hidden.map((h) => {
    const x = norm(h, base(names.finalNorm));
    return Array.from({ length: config.vocab }, (_, v) => {
      const { values, shape } = output.get(`${names.head}.weight`)!;
      return dot(
        x,
        Array.from({ length: shape[1]! }, (_u, i) => values[v * shape[1]! + i]!),
      );
    });
  });
}
