/** The networks whose training steps are timed: the sizes that the figures of other libraries are given for. */
import { type Device, key, type Key, nn, type Tensor } from "@tiedlora/core";

/** 784-512-512-10 with ReLU, as for handwritten digits. */
export class Classifier extends nn.Module {
  readonly layers: readonly nn.Linear[];

  constructor(device: Device) {
    super();
    const sizes = [784, 512, 512, 10];
    this.layers = sizes
      .slice(1)
      .map((size, i) => nn.Linear.init(sizes[i]!, size, { device, key: key(1).fold(i) }));
  }

  forward(x: Tensor): Tensor {
    return this.layers.reduce((h, layer, i) => layer.forward(i === 0 ? h : h.relu()), x);
  }
}

export interface GptSize {
  readonly layers: number;
  readonly dim: number;
  readonly heads: number;
  readonly vocab: number;
  readonly batch: number;
  readonly length: number;
}

export const GPT_SIZES = {
  small: { layers: 4, dim: 128, heads: 4, vocab: 512, batch: 8, length: 128 },
  medium: { layers: 6, dim: 384, heads: 6, vocab: 4096, batch: 4, length: 256 },
} as const satisfies Record<string, GptSize>;

/** A pre-norm decoder block. */
class Block extends nn.Module {
  readonly norm1: nn.LayerNorm;
  readonly attention: nn.CausalSelfAttention;
  readonly norm2: nn.LayerNorm;
  readonly mlp: nn.MLP;

  constructor({ dim, heads }: GptSize, device: Device, seed: Key) {
    super();
    this.norm1 = nn.LayerNorm.init(dim, { device });
    this.attention = new nn.CausalSelfAttention(dim, heads, { device, key: seed.fold("attention") });
    this.norm2 = nn.LayerNorm.init(dim, { device });
    this.mlp = nn.MLP.init(dim, 4 * dim, { device, key: seed.fold("mlp"), activation: "gelu_tanh" });
  }

  forward(x: Tensor): Tensor {
    const h = x.add(this.attention.forward(this.norm1.forward(x)));
    return h.add(this.mlp.forward(this.norm2.forward(h)));
  }
}

/** A GPT with learned positions and a head tied to the embedding. */
export class Gpt extends nn.Module {
  readonly tokens: nn.Embedding;
  readonly positions: nn.Embedding;
  readonly blocks: readonly Block[];
  readonly norm: nn.LayerNorm;

  constructor(size: GptSize, device: Device) {
    super();
    const seed = key(2);
    this.tokens = nn.Embedding.init(size.vocab, size.dim, { device, key: seed.fold("tokens"), std: 0.02 });
    this.positions = nn.Embedding.init(size.length, size.dim, {
      device,
      key: seed.fold("positions"),
      std: 0.02,
    });
    this.blocks = Array.from({ length: size.layers }, (_, i) => new Block(size, device, seed.fold(i)));
    this.norm = nn.LayerNorm.init(size.dim, { device });
  }

  /** ids (i32) [batch, length] -> logits [batch, length, vocab]. */
  forward(ids: Tensor): Tensor {
    const start = this.tokens.forward(ids).add(this.positions.weight);
    const hidden = this.blocks.reduce((x, block) => block.forward(x), start);
    return this.norm.forward(hidden).matmul(this.tokens.weight.transpose());
  }
}
