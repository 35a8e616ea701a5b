/** The training steps to measure, written as a user of the library would write them. */
import { type Device, Parameter, type Tensor, zeros } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";
import {
  ADAMW,
  adapterInit,
  batchSizes,
  gptInit,
  type GptSize,
  type Init,
  initialValues,
  LORA,
  LSTM,
  lstmBatch,
  lstmInit,
  type Method,
  mlpBatch,
  mlpInit,
  sizeOf,
  tokens,
  type Work,
} from "./problems.ts";

export type { Method, Work };

/** One workload on one device: `step(i)` submits step i and returns its loss; `units` is the number of tokens or rows per step. */
export interface Training {
  readonly units: number;
  readonly optimizer: optim.Optimizer;
  /** The loss of a step, not computed yet. */
  loss(step: number): Tensor;
  step(step: number): Tensor;
}

type Weights = ReadonlyMap<string, Parameter>;

function parameters(device: Device, list: readonly Init[]): Map<string, Parameter> {
  return new Map(
    list.map((init, i) => {
      const [name, shape] = init;
      return [name, Parameter.from(device, initialValues(init, i), shape, "f32", name)];
    }),
  );
}

/** Returns what the adapter adds to a layer's fused q, k, v projection of x; null without an adapter. */
type Adapter = (layer: number, x: Tensor) => Tensor | null;

function gptLogits(ids: Tensor, size: GptSize, w: Weights, adapter: Adapter): Tensor {
  const { layers, dim: d, heads } = size;
  const [batch, length] = ids.shape as [number, number];
  const positions = w.get("wpe")!;
  let h = w
    .get("wte")!
    .take(ids)
    .add(length === positions.shape[0] ? positions : positions.narrow(0, 0, length));
  for (let l = 0; l < layers; l++) {
    const p = (name: string): Parameter => w.get(`${l}.${name}`)!;
    const x = nn.layerNorm(h).mul(p("ln1g")).add(p("ln1b"));
    const base = x.matmul(p("wqkv")).add(p("bqkv"));
    const extra = adapter(l, x);
    const [q, k, v] = (extra ? base.add(extra) : base).split(d, -1).map((t) => nn.splitHeads(t, heads));
    const o = nn.mergeHeads(nn.scaledDotProductAttention(q!, k!, v!, { causal: true }));
    h = h.add(o.matmul(p("wo")).add(p("bo")));
    const y = nn.layerNorm(h).mul(p("ln2g")).add(p("ln2b"));
    h = h.add(y.matmul(p("w1")).add(p("b1")).gelu("tanh").matmul(p("w2")).add(p("b2")));
  }
  h = nn.layerNorm(h).mul(w.get("lnfg")!).add(w.get("lnfb")!);
  return h.reshape([batch * length, d]).matmul(w.get("wte")!.transpose());
}

/** The trained factors of a method, and the adapter made of them. A tied factor is one parameter for all layers. */
function adapterOf(
  device: Device,
  size: GptSize,
  method: Method,
): { trained: Parameter[]; adapter: Adapter } {
  const factors = adapterInit(size, method);
  if (factors.length === 0) return { trained: [], adapter: () => null };
  const w = parameters(
    device,
    factors.map(({ init }) => init),
  );
  const trained = factors.filter((factor) => factor.trained).map(({ init: [name] }) => w.get(name)!);
  const adapter: Adapter = (l, x) => {
    const of = (name: string): Parameter | undefined => w.get(`${l}.${name}`) ?? w.get(name);
    const [u, v] = [of("u"), of("v")];
    const down = x.matmul(of("A")!);
    const up = (u ? down.mul(u) : down).matmul(of("B")!);
    return (v ? up.mul(v) : up).mul(LORA.alpha / LORA.rank);
  };
  return { trained, adapter };
}

function gpt(device: Device, work: Work & { readonly kind: "gpt" }): Training {
  const [size, { method }] = [sizeOf(work.size), work];
  const weights = parameters(device, gptInit(size));
  const { trained, adapter } = adapterOf(device, size, method);
  const batches = batchSizes(work).map((one, i) => ({ ...tokens(i, one), length: one.length }));
  const optimizer =
    method === "full"
      ? decayMatrices([...weights.values()])
      : optim.adamW(trained, { ...ADAMW, lr: LORA.lr, weightDecay: 0 });
  const loss = (i: number): Tensor => {
    const { x, y, length } = batches[i % batches.length]!;
    const ids = device.tensor(x, { shape: [size.batch, length] });
    return nn.crossEntropy(gptLogits(ids, size, weights, adapter), device.tensor(y));
  };
  return training(size.batch * size.length, optimizer, loss);
}

/** Weight decay on matrices only, as in GPT-2 training. */
function decayMatrices(all: readonly Parameter[]): optim.Optimizer {
  return optim.adamW(all, { ...ADAMW, weightDecay: (p) => (p.rank >= 2 ? ADAMW.weightDecay : 0) });
}

function mlp(device: Device): Training {
  const weights = parameters(device, mlpInit());
  const batches = Array.from({ length: 16 }, (_, i) => mlpBatch(i));
  const optimizer = optim.adamW([...weights.values()], { lr: 1e-3, weightDecay: 0 });
  const loss = (i: number): Tensor => {
    const { x, y } = batches[i % 16]!;
    let h: Tensor = device.tensor(x, { shape: [128, 784], copy: false });
    for (let l = 0; l < 3; l++) {
      h = h.matmul(weights.get(`w${l}`)!).add(weights.get(`b${l}`)!);
      if (l < 2) h = h.relu();
    }
    return nn.crossEntropy(h, device.tensor(y));
  };
  return training(128, optimizer, loss);
}

/** Reads the inputs step by step, as PyTorch's LSTMCell does; the input, forget, cell and output gates lie beside each other. */
function lstm(device: Device, length: number, batchFirst = false): Training {
  const { width: d, batch } = LSTM;
  const weights = parameters(device, lstmInit());
  const w = (name: string): Parameter => weights.get(name)!;
  const batches = Array.from({ length: 4 }, (_, i) => lstmBatch(i, length));
  const optimizer = optim.adamW([...weights.values()], { lr: 1e-3, weightDecay: 0 });
  const loss = (i: number): Tensor => {
    const { x, y } = batches[i % batches.length]!;
    const shape = batchFirst ? [batch, length, d] : [length, batch, d];
    const inputs = device.tensor(x, { shape, copy: false });
    let [h, c] = [zeros([batch, d]), zeros([batch, d])];
    for (let t = 0; t < length; t++) {
      const at = inputs.narrow(batchFirst ? 1 : 0, t, 1).reshape([batch, d]);
      const gates = at
        .matmul(w("wx"))
        .add(h.matmul(w("wh")))
        .add(w("b"));
      const [input, forget, cell, output] = gates.split([d, d, d, d], 1) as [Tensor, Tensor, Tensor, Tensor];
      c = forget.sigmoid().mul(c).add(input.sigmoid().mul(cell.tanh()));
      h = output.sigmoid().mul(c.tanh());
    }
    return nn.crossEntropy(h.matmul(w("wo")).add(w("bo")), device.tensor(y));
  };
  return training(batch * length, optimizer, loss);
}

function training(units: number, optimizer: optim.Optimizer, loss: (i: number) => Tensor): Training {
  return {
    units,
    optimizer,
    loss,
    step: (i) => {
      const value = loss(i);
      optimizer.step(value);
      return value;
    },
  };
}

/** Sets a workload up. */
export function prepare(device: Device, work: Work): Training {
  if (work.kind === "lstm") return lstm(device, work.length, work.batchFirst);
  return work.kind === "mlp" ? mlp(device) : gpt(device, work);
}
