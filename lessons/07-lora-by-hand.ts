/**
 * Lesson 7. LoRA by hand.
 *
 *   npx tsx --conditions=@tiedlora/source lessons/07-lora-by-hand.ts
 *
 * To teach a trained network something new, we could train all its weights again, and keep a whole copy for each task.
 * LoRA (Hu et al., 2021) bets that the change is simple: instead of an arbitrary ΔW it learns ΔW = s · B A, where A has r rows
 * and B has r columns, with a small rank r. W stays frozen; only A and B are kept for a task.
 */
import { cpu } from "@tiedlora/backend-cpu";
import { grad, key, normalArray, Parameter, type Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";

function expect(holds: boolean, what: string): void {
  if (!holds) throw new Error(`expected that ${what}`);
  console.log(`  ok: ${what}`);
}

const device = await cpu();
const DIM = 64;
const normal = (name: string, rows: number, columns: number, std: number): Tensor =>
  device.tensor(normalArray(key(1).fold(name), rows * columns, 0, std), { shape: [rows, columns] });

// --- 1. A trained layer, and a new task: the same map, changed in two directions. Nobody tells us which.

const W = new nn.Linear(
  Parameter.from(device, normalArray(key(2), DIM * DIM, 0, 1 / 8), [DIM, DIM], "f32", "W"),
);
W.weight.requiresGrad = false; // frozen: no gradient is computed for it, and no optimizer state is kept
const change = normal("left", DIM, 2, 0.3).matmul(normal("right", 2, DIM, 0.3)); // ΔW of the task, rank 2
const task = (x: Tensor): Tensor => W.forward(x).add(x.matmul(change.transpose()));

// --- 2. The adapter: next to the frozen layer, not in it. B starts at zero, so that at first nothing changes.

class LoRA extends nn.Module {
  readonly A: Parameter;
  readonly B: Parameter;
  readonly scale: number;

  constructor(rank: number, alpha: number) {
    super();
    this.A = Parameter.from(device, normalArray(key(3), rank * DIM, 0, 1 / 8), [rank, DIM], "f32", "A");
    this.B = Parameter.from(device, new Float32Array(DIM * rank), [DIM, rank], "f32", "B");
    this.scale = alpha / rank;
  }

  /** x [n, DIM] -> [n, DIM]. First down to r numbers, then up again: ΔW itself is never computed. */
  forward(x: Tensor): Tensor {
    const update = x.matmul(this.A.transpose()).matmul(this.B.transpose());
    return W.forward(x).add(update.mul(this.scale));
  }
}

const batch = (step: number): Tensor => normal(`batch ${step}`, 128, DIM, 1);
const loss = (adapter: LoRA, x: Tensor): Tensor => nn.mse(adapter.forward(x), task(x));
/** The share of the task's change that is not learned yet, on new inputs: 1 at the start, 0 when everything is learned. */
async function missing(adapter: LoRA): Promise<number> {
  const x = batch(-1);
  return await loss(adapter, x)
    .div(nn.mse(W.forward(x), task(x)))
    .item();
}

// --- 3. The start. With B = 0 the gradient of A is 0 too: A waits one step for B. If both were zero, they would wait forever.

console.log("At the start");
const adapter = new LoRA(2, 4);
const probe = batch(0);
const same = await adapter.forward(probe).sub(W.forward(probe)).abs().max().item();
expect(same === 0, "the adapted layer answers exactly as before");
const [dA, dB] = grad(loss(adapter, probe), [adapter.A, adapter.B]) as [Tensor, Tensor];
expect((await dA.abs().max().item()) === 0, "A has no gradient while B is zero");
expect((await dB.abs().max().item()) > 0, "B has one");

// --- 4. Training, at two ranks. Rank 2 can express the change; rank 1 cannot, whatever it does.

async function train(one: LoRA): Promise<number> {
  const optimizer = optim.adamW(one.parameters(), {
    lr: optim.cosine(0.02, { steps: 300, warmup: 10 }),
    weightDecay: 0,
  });
  for (let step = 0; step < 300; step++) optimizer.step(loss(one, batch(step % 16)));
  return missing(one);
}

console.log("Training");
const before = (await W.weight.data()).slice();
const narrow = new LoRA(1, 2);
const [left2, left1] = [await train(adapter), await train(narrow)];
const count = (one: LoRA): number => one.parameters().reduce((sum, p) => sum + p.size, 0);
console.log(`  all of W: ${DIM * DIM} numbers; rank 2: ${count(adapter)}, rank 1: ${count(narrow)}`);
console.log(
  `  of the change is missing: at rank 2 ${(100 * left2).toFixed(2)} %, at rank 1 ${(100 * left1).toFixed(1)} %`,
);
expect(left2 < 0.01, "rank 2 has learnt the task with a sixteenth of the numbers");
expect(left1 > 0.1, "rank 1 has not: the change has two directions");
expect(
  (await W.weight.data()).every((w, i) => w === before[i]),
  "W has not moved by a bit",
);

// --- 5. Merging: after training, ΔW can be added to W once and for all. The adapted model is then as fast as the original.

console.log("Merging");
const merged = W.weight.add(adapter.B.matmul(adapter.A).mul(adapter.scale));
const off = await batch(99)
  .matmul(merged.transpose())
  .sub(adapter.forward(batch(99)))
  .abs()
  .max()
  .item();
expect(off < 1e-4, "W + s · B A answers as the adapter does");

device.close();
