/**
 * The computation of one layer of the decoder. The modules are the decoder's (decoder.ts), which has them under Hugging
 * Face's names as well; here they are known by function.
 *
 *   x += postNorm(out(attention(qkv(norm(x)))));  x += postNorm(mlp(norm(x)))
 */
import { concat, type Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import type { KvCache } from "./cache.ts";
import type { Activation, DecoderConfig } from "./config.ts";
import type { Router } from "./experts.ts";
import type { Sequence } from "./sequence.ts";
import { softcappedAttention } from "./softcap.ts";

/** The modules of an MLP, by function. */
interface Mlp {
  readonly gate: nn.Linear | null;
  readonly up: nn.Linear;
  readonly down: nn.Linear;
}

/** The modules of one layer, by function. */
export interface Layer {
  readonly attentionNorm: nn.Norm | null;
  readonly qkv: readonly nn.Linear[];
  readonly qNorm: nn.Norm | null;
  readonly kNorm: nn.Norm | null;
  readonly out: nn.Linear;
  readonly attentionPostNorm: nn.Norm | null;
  readonly mlpNorm: nn.Norm | null;
  /** Chooses among `mlps` for each token; null if there is only one. */
  readonly router: Router | null;
  readonly mlps: readonly Mlp[];
  readonly mlpPostNorm: nn.Norm | null;
}

/** Where a layer runs: its index, and what the sequence and the cache know. */
export interface LayerContext {
  readonly config: DecoderConfig;
  readonly index: number;
  readonly sequence: Sequence;
  readonly cache: KvCache | undefined;
}

const ACTIVATIONS: { readonly [A in Activation]: (x: Tensor) => Tensor } = {
  silu: (x) => x.silu(),
  gelu: (x) => x.gelu(),
  gelu_tanh: (x) => x.gelu("tanh"),
  relu: (x) => x.relu(),
  relu2: (x) => x.relu().square(),
};

const normed = (norm: nn.Norm | null, x: Tensor): Tensor => (norm ? norm.forward(x) : x);

/** The residual stream [batch, length, hidden] after a layer. */
export function runLayer(layer: Layer, x: Tensor, context: LayerContext): Tensor {
  const seen = attention(layer, normed(layer.attentionNorm, x), context);
  const attended = x.add(normed(layer.attentionPostNorm, seen));
  const thought = mlps(layer, normed(layer.mlpNorm, attended), context.config);
  return attended.add(normed(layer.mlpPostNorm, thought));
}

function attention(layer: Layer, x: Tensor, { config, index, sequence, cache }: LayerContext): Tensor {
  const window = config.windows[index]!;
  let [q, k, v] = heads(layer, x, config);
  const rotation = sequence.rotation(window);
  if (rotation && config.ropeLayers[index]!) {
    [q, k] = [nn.rope(q, rotation.cos, rotation.sin), nn.rope(k, rotation.cos, rotation.sin)];
  }
  if (cache) [k, v] = cache.append(index, k, v);
  const { causal, bias: own } = sequence.visibility(window);
  const front = prefixOf(layer, config);
  const bias = front && own ? own.pad([[0, 0], [0, 0], [0, 0], [front[0].shape[1]!, 0]]) : own; // prettier-ignore
  if (front) [k, v] = [inFront(front[0], k), inFront(front[1], v)];
  const options = { causal, scale: config.attentionScales[index]!, ...(bias ? { bias } : {}) };
  const limit = config.attentionSoftcap;
  const seen =
    limit === null
      ? nn.scaledDotProductAttention(q, k, v, options)
      : softcappedAttention(q, k, v, limit, options);
  return layer.out.forward(nn.mergeHeads(seen));
}

/** The number of keys that adapters put in front of those of each attention; 0 if there are none. */
export function prefixLength(layers: readonly Layer[]): number {
  return layers.reduce((most, { qkv }) => Math.max(most, qkv.at(-1)!.adapter?.prefix?.()?.shape[0] ?? 0), 0);
}

/** The keys and values that adapters put in front of those of a layer's tokens, [kvHeads, n, headDim] each; null if there are none. */
function prefixOf({ qkv }: Layer, { kvHeads }: DecoderConfig): readonly [k: Tensor, v: Tensor] | null {
  const found = qkv.slice(-2).map((linear) => linear.adapter?.prefix?.() ?? null);
  const [k, v] = found.length === 1 && found[0] ? found[0].split(found[0].shape[1]! / 2, -1) : found;
  if (!k && !v) return null;
  if (!k || !v || k.shape[0] !== v.shape[0])
    throw new Error(
      `an attention has ${k?.shape[0] ?? 0} keys and ${v?.shape[0] ?? 0} values in front of those of its tokens; adapt the linears of both by one method`,
    );
  return [
    nn.splitHeads(k.unsqueeze(0), kvHeads).squeeze(0),
    nn.splitHeads(v.unsqueeze(0), kvHeads).squeeze(0),
  ];
}

/** x [batch, heads, length, width] with the same rows in front for each of the batch. */
function inFront(front: Tensor, x: Tensor): Tensor {
  return concat([front.unsqueeze(0).expand([x.shape[0]!, ...front.shape]), x], 2);
}

/** Queries [batch, heads, length, headDim], keys and values [batch, kvHeads, length, headDim], before the rotation. */
function heads(layer: Layer, x: Tensor, config: DecoderConfig): [q: Tensor, k: Tensor, v: Tensor] {
  const { kvHeads, headDim, qkNorm } = config;
  const projected = layer.qkv.map((linear) => linear.forward(x));
  const widths = [config.heads * headDim, kvHeads * headDim, kvHeads * headDim];
  const parts = projected.length === 1 ? projected[0]!.split(widths, -1) : projected;
  const norms = [layer.qNorm, layer.kNorm, null];
  const whole = qkNorm === "projection" ? parts.map((part, i) => normed(norms[i]!, part)) : parts;
  const split = whole.map((part, i) => nn.splitHeads(part, i === 0 ? config.heads : kvHeads));
  const each = qkNorm === "head" ? split.map((part, i) => normed(norms[i]!, part)) : split;
  return each as [Tensor, Tensor, Tensor];
}

/** The output of the layer's MLP, or the sum of its experts' outputs, each multiplied by the router's weight. */
function mlps(layer: Layer, x: Tensor, config: DecoderConfig): Tensor {
  if (layer.router === null) return mlp(layer.mlps[0]!, x, config);
  const weights = layer.router.forward(x, config.experts!);
  const parts = layer.mlps.map((expert, i) => mlp(expert, x, config).mul(weights.narrow(-1, i, 1)));
  return parts.reduce((a, b) => a.add(b));
}

function mlp({ gate, up, down }: Mlp, x: Tensor, config: DecoderConfig): Tensor {
  const act = ACTIVATIONS[config.activation];
  const upper = up.forward(x);
  if (config.mlp === "plain") return down.forward(act(upper));
  const [gating, linear] = gate ? [gate.forward(x), upper] : upper.split(config.intermediate, -1);
  return down.forward(act(gating!).mul(linear!));
}
