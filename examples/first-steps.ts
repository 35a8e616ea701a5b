/**
 * First steps: tensors, gradients, and a small network that learns to tell two spirals apart.
 *
 *   npx tsx --conditions=@tiedlora/source examples/first-steps.ts
 */
import assert from "node:assert/strict";
import { cpu } from "@tiedlora/backend-cpu";
import { grad, key, type Tensor, uniformArray } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";

const device = await cpu();

// 1. A tensor is a recipe. Nothing is computed until a value is read; then everything runs as one fused kernel.
const a = device.tensor([
  [1, 2, 3],
  [4, 5, 6],
]);
const row = device.tensor([10, 20, 30]);
const b = a.mul(2).add(row).sqrt(); // shapes broadcast: [2, 3] and [3]
console.log("√(2a + row) =", await b.toArray());

// 2. Gradients extend the graph: the gradient of a scalar with respect to any tensors, and gradients of gradients.
const x = device.tensor([-1, 0, 2]);
const y = x.pow(3).sum();
const [slope] = grad(y, [x]) as [Tensor]; // 3x²
const [curvature] = grad(slope.sum(), [x]) as [Tensor]; // 6x
console.log("3x² =", await slope.toArray(), " 6x =", await curvature.toArray());
assert.deepEqual(await slope.toArray(), [3, 0, 12]);
assert.deepEqual(await curvature.toArray(), [-6, 0, 12]);

// 3. Data: two spirals of 200 points each, wound around each other. The same key gives the same numbers on every backend.
const N = 200;
const noise = uniformArray(key(1), 4 * N, -0.04, 0.04);
const points = new Float32Array(4 * N);
const classes = new Int32Array(2 * N);
for (let i = 0; i < 2 * N; i++) {
  classes[i] = i % 2;
  const t = i / (2 * N);
  const angle = 3 * Math.PI * t + Math.PI * classes[i]!;
  points[2 * i] = t * Math.cos(angle) + noise[2 * i]!;
  points[2 * i + 1] = t * Math.sin(angle) + noise[2 * i + 1]!;
}
const input = device.tensor(points, { shape: [2 * N, 2] });
const target = device.tensor(classes, { shape: [2 * N], dtype: "i32" });

// 4. A module is a class with parameters in its fields; the library finds them by walking the fields.
class Network extends nn.Module {
  readonly first: nn.Linear = nn.Linear.init(2, 64, { device, key: key(2) });
  readonly second: nn.Linear = nn.Linear.init(64, 64, { device, key: key(3) });
  readonly last: nn.Linear = nn.Linear.init(64, 2, { device, key: key(4) });

  /** Points [n, 2] -> logits [n, 2]. */
  forward(x: Tensor): Tensor {
    return this.last.forward(this.second.forward(this.first.forward(x).tanh()).tanh());
  }
}
const network = new Network();
const count = network.parameters().reduce((sum, p) => sum + p.size, 0);
console.log(`${count} parameters in ${network.parameters().length} tensors`);

// 5. Training. `step` differentiates the loss, updates every parameter, and submits one program; awaiting the loss reads it.
const STEPS = 400;
const optimizer = optim.adamW(network.parameters(), { lr: optim.cosine(0.02, { steps: STEPS, warmup: 20 }) });
let loss = NaN;
for (let step = 0; step <= STEPS; step++) {
  const current = nn.crossEntropy(network.forward(input), target);
  optimizer.step(current);
  if (step % 100 === 0) {
    loss = await current.item();
    console.log(`step ${String(step).padStart(3)}  loss ${loss.toFixed(4)}`);
  }
}

const right = network.forward(input).argmax().eq(target).cast("f32").mean();
const accuracy = await right.item();
console.log(`${(100 * accuracy).toFixed(1)} % of the points are on the right side`);
assert.ok(accuracy > 0.97 && loss < 0.1, "the network should have learned the spirals");

device.close(); // ends the threads, so that the program can end
