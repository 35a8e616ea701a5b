/**
 * Lesson 8. Tying and masks: Tied-LoRA.
 *
 *   npx tsx --conditions=@tiedlora/source lessons/08-tying-and-masks.ts
 *
 * LoRA gives each of L layers its own A and B. Tied-LoRA (Renduchintala et al., 2023) gives all layers one pair, and each
 * layer two vectors of its own: ΔW_l = diag(v_l) · B · diag(u_l) · A. It also asks which of A, B, u and v need training at
 * all. So there are two ideas to understand, and neither needs new machinery: tying is one parameter in several places;
 * selective training is a mask on the update.
 */
import { cpu } from "@tiedlora/backend-cpu";
import { grad, key, normalArray, Parameter, type Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";
import { countParameters, methods } from "tiedlora";

function expect(holds: boolean, what: string): void {
  if (!holds) throw new Error(`expected that ${what}`);
  console.log(`  ok: ${what}`);
}

const device = await cpu();
const [LAYERS, DIM, RANK] = [4, 32, 4];
const draw = (name: string, shape: number[], std: number): Parameter =>
  Parameter.from(device, normalArray(key(1).fold(name), shape.reduce((a, b) => a * b, 1), 0, std), shape, "f32", name); // prettier-ignore
const constant = (name: string, shape: number[], value: number): Parameter =>
  Parameter.from(device, new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(value), shape, "f32", name);

// --- 1. A frozen network of four layers, and an adapter whose A and B may be one pair or four.

const weights = Array.from({ length: LAYERS }, (_, l) => draw(`W${l}`, [DIM, DIM], 0.1));

class TiedLoRA extends nn.Module {
  readonly A: readonly Parameter[];
  readonly B: readonly Parameter[];
  readonly u: readonly Parameter[];
  readonly v: readonly Parameter[];

  constructor(tied: boolean) {
    super();
    const perLayer = <T>(make: (l: number) => T): T[] => Array.from({ length: LAYERS }, (_, l) => make(l));
    const [A, B] = [draw("A", [RANK, DIM], 0.2), draw("B", [DIM, RANK], 0.2)];
    // Tying is just this: the same Parameter object, four times. Untied, they are four objects with equal values.
    this.A = perLayer(() => (tied ? A : draw("A", [RANK, DIM], 0.2)));
    this.B = perLayer(() => (tied ? B : draw("B", [DIM, RANK], 0.2)));
    this.u = perLayer((l) => constant(`u${l}`, [RANK], 1));
    this.v = perLayer((l) => constant(`v${l}`, [DIM], 0.5));
  }

  forward(x: Tensor): Tensor {
    return weights.reduce<Tensor>((h, W, l) => {
      const low = h.matmul(this.A[l]!.transpose()).mul(this.u[l]!);
      const update = low.matmul(this.B[l]!.transpose()).mul(this.v[l]!);
      return h.add(h.matmul(W.transpose()).add(update).tanh());
    }, x);
  }
}

const x = draw("x", [64, DIM], 1).detach();
const target = x.matmul(draw("T", [DIM, DIM], 0.3).transpose()).detach();
const lossOf = (model: TiedLoRA): Tensor => nn.mse(model.forward(x), target);

// --- 2. What tying does to a gradient: it is the sum of what each layer would have wanted.

console.log("Tying");
const [tied, untied] = [new TiedLoRA(true), new TiedLoRA(false)];
expect(tied.parameters().length === 2 + 2 * LAYERS, "a tied parameter is listed once");
expect(untied.parameters().length === 4 * LAYERS, "untied ones are listed each");
const [dA] = grad(lossOf(tied), [tied.A[0]!]) as [Tensor];
const each = grad(lossOf(untied), untied.A);
const sum = each.reduce((a, b) => a.add(b));
const apart = await dA.sub(sum).abs().max().div(dA.abs().max()).item();
expect(apart < 1e-4, "the gradient of the tied A is the sum of the gradients of the four");

// --- 3. Freezing. A parameter without `requiresGrad` is not updated. Weight decay does not touch it either.

console.log("Masks");
const [A, B] = [tied.A[0]!, tied.B[0]!];
A.requiresGrad = false;
const mask = Float32Array.from({ length: DIM }, (_, i) => (i < DIM / 2 ? 1 : 0));
for (const v of tied.v) v.updateMask = device.tensor(mask); // half of each v is trained, element by element
const start = { A: (await A.data()).slice(), v: (await tied.v[2]!.data()).slice() };
const first = await lossOf(tied).item();
const optimizer = optim.adamW(tied.parameters(), { lr: 0.01, weightDecay: 0.1 });
for (let step = 0; step < 100; step++) optimizer.step(lossOf(tied));
const last = await lossOf(tied).item();
console.log(`  loss ${first.toFixed(3)} → ${last.toFixed(3)}`);
expect(last < 0.7 * first, "the rest learns");
expect(
  (await A.data()).every((a, i) => a === start.A[i]),
  "a frozen factor has not moved by a bit",
);
const v = await tied.v[2]!.data();
expect(v.every((value, i) => mask[i] === 1 || value === start.v[i]), "masked elements have not moved, decay or no decay"); // prettier-ignore
expect(
  v.some((value, i) => mask[i] === 1 && value !== start.v[i]),
  "their neighbours have",
);

// --- 4. The zero start. B u A v is a product: if exactly one factor starts at zero, nothing changes, and soon all get gradients.

B.set(new Float32Array(DIM * RANK));
const [dv, dB] = grad(lossOf(tied), [tied.v[0]!, B]) as [Tensor, Tensor];
expect((await dv.abs().max().item()) === 0 && (await dB.abs().max().item()) > 0, "with B = 0, B alone has a gradient"); // prettier-ignore
for (const one of tied.v) one.set(new Float32Array(DIM));
const [, stuck] = grad(lossOf(tied), [tied.v[0]!, B]) as [Tensor, Tensor];
expect((await stuck.abs().max().item()) === 0, "with v = 0 as well, nothing ever would");

// --- 5. In the library, a name says the same. The trained factors determine what must be kept for a task.

console.log("Counting, for 32 layers of width 4096 at rank 8");
const layers = Array.from({ length: 32 }, (_, i) => ({ path: `model.layers.${i}.self_attn.qkv_proj`, in: 4096, out: 3 * 4096 })); // prettier-ignore
const count = (name: "lora" | "tl6" | "vera"): number =>
  countParameters(layers, methods[name]({ rank: 8, target: ["qkv_proj"] })).trainable;
const [L, d, r] = [32, 4096, 8];
for (const name of ["lora", "tl6", "vera"] as const) console.log(`  ${name.padEnd(5)} ${count(name).toLocaleString("en").padStart(10)}`); // prettier-ignore
expect(count("lora") === 4 * L * d * r, "LoRA: 4 L d r");
expect(count("tl6") === (L + 4 * d) * r + 3 * d * L, "Tied-LoRA, all four trained: (L + 4d) r + 3dL");
expect(count("vera") === L * (r + 3 * d), "VeRA, u and v alone: L (r + 3d)");

device.close();
