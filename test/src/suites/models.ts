/** Two small networks for training curves. The seed determines everything. */
import { type Device, type Parameter, random, type Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";

/** A network with its optimizer. */
export interface Trainer {
  /** Trains on batch `index`, and resolves to the loss before the update. */
  step(index: number): Promise<number>;
  /** The parameters that are trained. */
  readonly parameters: readonly Parameter[];
}

type MakeOptimizer = (parameters: readonly Parameter[]) => optim.Optimizer;

const momentum: MakeOptimizer = (parameters) =>
  optim.sgd(parameters, { lr: 0.05, momentum: 0.9, weightDecay: 0.001 });

/** Regression with a two-layer network, momentum and weight decay unless another optimizer is given. */
export function mlpTrainer(device: Device, makeOptimizer: MakeOptimizer = momentum): Trainer {
  const key = random.key(7);
  const mlp = nn.MLP.init(5, 16, { device, key: key.fold("mlp"), activation: "tanh" });
  const parameters = mlp.parameters();
  const optimizer = makeOptimizer(parameters);
  return {
    parameters,
    step: (index) => {
      const values = random.normalArray(key.fold("data").fold(index % 3), 12 * 5);
      const x = device.tensor(values, { shape: [12, 5] });
      const target = x.sin().add(x.sum(-1, { keepdims: true }).mul(0.3));
      const loss = nn.mse(mlp.forward(x), target);
      optimizer.step(loss);
      return loss.item();
    },
  };
}

const VOCAB = 23;
const DIM = 12;

/** The size of a GPT and of its batches. */
export interface GPTSize {
  readonly batch: number;
  readonly length: number;
  readonly blocks: number;
}

class Block extends nn.Module {
  readonly norm1: nn.LayerNorm;
  readonly attention: nn.CausalSelfAttention;
  readonly norm2: nn.LayerNorm;
  readonly mlp: nn.MLP;

  constructor(device: Device, key: random.Key) {
    super();
    this.norm1 = nn.LayerNorm.init(DIM, { device });
    // No bias: the gradient of the keys' bias is only rounding errors, which AdamW would amplify to full steps.
    const attention = { device, key: key.fold("attention"), bias: false };
    this.attention = new nn.CausalSelfAttention(DIM, 3, attention);
    this.norm2 = nn.LayerNorm.init(DIM, { device });
    this.mlp = nn.MLP.init(DIM, 4 * DIM, { device, key: key.fold("mlp"), activation: "gelu_tanh" });
  }

  forward(x: Tensor, key: random.Key): Tensor {
    const h = x.add(nn.dropout(this.attention.forward(this.norm1.forward(x)), 0.1, key));
    return h.add(this.mlp.forward(this.norm2.forward(h)));
  }
}

/** A GPT whose output layer is tied to its embedding. */
class GPT extends nn.Module {
  readonly tokens: nn.Embedding;
  readonly positions: nn.Embedding;
  readonly blocks: readonly Block[];
  readonly norm: nn.LayerNorm;

  constructor(device: Device, key: random.Key, { length, blocks }: GPTSize) {
    super();
    this.tokens = nn.Embedding.init(VOCAB, DIM, { device, key: key.fold("tokens"), std: 0.3 });
    this.positions = nn.Embedding.init(length, DIM, { device, key: key.fold("positions"), std: 0.1 });
    this.blocks = Array.from({ length: blocks }, (_, i) => new Block(device, key.fold(i)));
    this.norm = nn.LayerNorm.init(DIM, { device });
  }

  loss(ids: Tensor, targets: Tensor, mask: Tensor, key: random.Key): Tensor {
    let x = this.tokens.forward(ids).add(this.positions.weight);
    this.blocks.forEach((block, i) => (x = block.forward(x, key.fold(i))));
    const logits = this.norm.forward(x).matmul(this.tokens.weight.transpose());
    return nn.crossEntropy(logits, targets, { mask });
  }
}

/** Next-token prediction: dropout, tied weights, a frozen weight, a masked weight, clipping, a schedule, accumulation. */
export function gptTrainer(device: Device, size: GPTSize = { batch: 2, length: 9, blocks: 2 }): Trainer {
  const key = random.key(11);
  const { batch, length } = size;
  const model = new GPT(device, key, size);
  const first = model.blocks[0]!;
  model.positions.weight.requiresGrad = false;
  const rows = Float32Array.from({ length: 4 * DIM }, (_, i) => i % 2);
  first.mlp.up.weight.updateMask = device.tensor(rows, { shape: [4 * DIM, 1] });
  const parameters = model.parameters();
  const lr = optim.cosine(2e-2, { warmup: 3, steps: 40 });
  const optimizer = optim.adamW(parameters, { lr, clipNorm: 1, weightDecay: 0.1 });
  const loss = (index: number): Tensor => {
    const draws = random.uniformArray(key.fold("data").fold(index % 2), batch * (length + 1), 0, VOCAB);
    const ids = Int32Array.from(draws, (x, i) => (i % 2 === 0 ? Math.floor(x) : (i * 5) % VOCAB));
    const shifted = (by: number): Tensor => {
      const rows = Array.from({ length: batch }, (_, b) => [
        ...ids.subarray(b * (length + 1) + by).subarray(0, length),
      ]);
      return device.tensor(Int32Array.from(rows.flat()), { shape: [batch, length], dtype: "i32" });
    };
    const weights = Float32Array.from({ length: batch * length }, (_, i) => Number(i % 5 !== 0));
    const mask = device.tensor(weights, { shape: [batch, length] });
    return model.loss(shifted(0), shifted(1), mask, key.fold("dropout").fold(index));
  };
  return {
    parameters,
    step: async (index) => {
      if (index % 5 === 4) {
        const half = loss(index + 100).mul(0.5);
        optimizer.accumulate(half);
        await half.item();
      }
      const y = loss(index);
      optimizer.step(y);
      return y.item();
    },
  };
}
