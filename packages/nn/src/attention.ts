/** Attention with grouped queries, and rotary positions. */
import { concat, Tensor } from "@tiedlora/core";
import { broadcastShapes, build, checkFinite, checkNumbers, checkOptions } from "@tiedlora/core/extend";
import { checkTensors, checkWhole, deviceOf, show } from "@tiedlora/core/extend";
import { checkInit, type InitOptions } from "./init.ts";
import { Linear } from "./linear.ts";
import { Module } from "./module.ts";

/** Which keys a query attends to, and how scores are scaled. */
export interface AttentionOptions {
  /** If true, query i attends to key j only if j <= i + kv - q (the last query attends to all keys). Default false. */
  readonly causal?: boolean;
  /** Default 1/√d. */
  readonly scale?: number;
  /** Added to the scaled scores; broadcasts to [batch, heads, q, kv]. A value of -1e30 masks a key. */
  readonly bias?: Tensor;
}

/**
 * softmax(scale · q kᵀ + bias) v for q [batch, heads, q, d], k and v [batch, kvHeads, kv, d], where kvHeads divides
 * heads: head h uses key head floor(h · kvHeads / heads). Result [batch, heads, q, d]. Throws RangeError for other shapes.
 */
export function scaledDotProductAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: AttentionOptions = {},
): Tensor {
  const what = "scaledDotProductAttention";
  const given = checkOptions(what, options, "{ causal: true }", ["causal", "scale", "bias"]);
  checkTensors(what, [q, k, v, ...(given.bias === undefined ? [] : [given.bias])]);
  const [batch, heads, length, d] = q.shape as [number, number, number, number];
  const [kBatch, kvHeads, kv, kd] = k.shape as [number, number, number, number];
  const ranks = q.rank === 4 && k.rank === 4 && k.shape.every((n, i) => n === v.shape[i]);
  if (!ranks || kBatch !== batch || kd !== d || heads % kvHeads !== 0) {
    throw new RangeError(
      `${what}: q ${show(q.shape)}, k ${show(k.shape)}, v ${show(v.shape)}; need [batch, heads, q, d] and twice ` +
        `[batch, kvHeads, kv, d] with kvHeads dividing heads`,
    );
  }
  const scores = [batch, heads, length, kv];
  if (given.bias) broadcastShapes(given.bias.shape, scores, `${what}: the bias and the scores`);
  const bias = given.bias ? [given.bias.expand(scores)] : [];
  const { causal = false, scale = 1 / Math.sqrt(d) } = given;
  const attrs = { causal, scale: checkFinite(`${what}: scale`, scale) };
  const [out] = build.attention([q.node, k.node, v.node, ...bias.map((t) => t.node)], attrs);
  return new Tensor(out, deviceOf([q, k, v, ...bias]));
}

/**
 * Cosines and sines [length, d/2] of the rotary angles of positions 0 … length-1, from d/2 inverse frequencies in radians per
 * position. Computed on the host in f64, then rounded to f32.
 */
export function ropeTable(
  length: number,
  inverseFrequencies: readonly number[],
): { cos: Float32Array; sin: Float32Array } {
  checkWhole("ropeTable: length", length);
  const half = checkNumbers("ropeTable", inverseFrequencies).length;
  const angles = Float64Array.from(
    { length: length * half },
    (_, i) => Math.floor(i / half) * inverseFrequencies[i % half]!,
  );
  return { cos: Float32Array.from(angles, Math.cos), sin: Float32Array.from(angles, Math.sin) };
}

/**
 * Rotary position embedding in the half-rotation form of Hugging Face (not interleaved): rotates each pair
 * (x[i], x[i + rotary/2]) by the angle of frequency i. x is [..., t, d]; cos and sin are [t, rotary/2] or any shape that
 * broadcasts to [..., t, rotary/2]. Elements from `rotary` on pass unchanged. Throws RangeError if `rotary` exceeds d.
 */
export function rope(x: Tensor, cos: Tensor, sin: Tensor): Tensor {
  checkTensors("rope", [x, cos, sin]);
  const half = cos.shape.at(-1) ?? 0;
  const rest = (x.shape.at(-1) ?? 0) - 2 * half;
  if (rest < 0 || sin.shape.at(-1) !== half || x.rank === 0)
    throw new RangeError(
      `rope: x ${show(x.shape)}, cos ${show(cos.shape)}, sin ${show(sin.shape)}; need x [..., t, d], and cos and sin ` +
        `[t, rotary / 2] with rotary at most d`,
    );
  const [a, b] = [x.narrow(-1, 0, half), x.narrow(-1, half, half)];
  const turned = [a.mul(cos).sub(b.mul(sin)), b.mul(cos).add(a.mul(sin))];
  return concat(rest > 0 ? [...turned, x.narrow(-1, 2 * half, rest)] : turned, -1);
}

/** [batch, t, heads · d] -> [batch, heads, t, d]. */
export function splitHeads(x: Tensor, heads: number): Tensor {
  const [batch, t, width] = checkTensors("splitHeads", [x])[0]!.shape as [number, number, number];
  if (x.rank !== 3 || width % checkWhole("splitHeads: heads", heads, 1) !== 0)
    throw new RangeError(`splitHeads: ${show(x.shape)} into ${heads} heads; need [batch, t, heads · d]`);
  return x.reshape([batch, t, heads, width / heads]).permute([0, 2, 1, 3]);
}

/** [batch, heads, t, d] -> [batch, t, heads · d]. */
export function mergeHeads(x: Tensor): Tensor {
  const [batch, heads, t, d] = checkTensors("mergeHeads", [x])[0]!.shape as [number, number, number, number];
  if (x.rank !== 4) throw new RangeError(`mergeHeads: ${show(x.shape)}; need [batch, heads, t, d]`);
  return x.permute([0, 2, 1, 3]).reshape([batch, t, heads * d]);
}

/** Causal self-attention as in GPT-2: one projection to q, k and v, and one output projection. */
export class CausalSelfAttention extends Module {
  /** [dim] -> [3 · dim]: q, k and v side by side. */
  readonly qkv: Linear;
  /** [dim] -> [dim]. */
  readonly out: Linear;
  /** The number of heads, which divides dim. */
  readonly heads: number;

  constructor(dim: number, heads: number, options: InitOptions & { readonly bias?: boolean }) {
    super();
    checkWhole("CausalSelfAttention: dim", dim, 1);
    checkWhole("CausalSelfAttention: heads", heads, 1, dim);
    if (dim % heads !== 0)
      throw new RangeError(
        `CausalSelfAttention: ${heads} heads do not divide dim ${dim}; give a divisor of it`,
      );
    checkInit("CausalSelfAttention", options);
    this.heads = heads;
    this.qkv = Linear.init(dim, 3 * dim, { ...options, key: options.key.fold("qkv") });
    this.out = Linear.init(dim, dim, { ...options, key: options.key.fold("out") });
  }

  /** x [batch, t, dim] -> [batch, t, dim]. */
  forward(x: Tensor): Tensor {
    const dim = this.out.inFeatures;
    const [q, k, v] = this.qkv.forward(x).split(dim, -1) as [Tensor, Tensor, Tensor];
    const [hq, hk, hv] = [splitHeads(q, this.heads), splitHeads(k, this.heads), splitHeads(v, this.heads)];
    return this.out.forward(mergeHeads(scaledDotProductAttention(hq, hk, hv, { causal: true })));
  }
}
