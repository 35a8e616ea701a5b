/**
 * Lesson 9. A method nobody has published.
 *
 *   npx tsx --conditions=@tiedlora/source lessons/09-a-method-of-your-own.ts
 *
 * A method of adaptation is a declaration: its factors, the modules over which they are tied, which are trained, how they
 * start, and the formula. Here is one that we have not seen anywhere. Tied-LoRA's B is the largest factor that it trains, so
 * let us do without it. "Mirror" uses A a second time, through a random matrix R that is never trained:
 *
 *   ΔW_l = diag(v_l) · (R Aᵀ) · diag(u_l) · A          A tied and trained, R tied and frozen, u and v each layer's own
 *
 * Is it any good? We measure: the same model, the same data and the same steps as Tied-LoRA's TL6, and we count the numbers.
 */
import { cpu } from "@tiedlora/backend-cpu";
import { key, uniformArray } from "@tiedlora/core";
import * as optim from "@tiedlora/nn/optim";
import { configFrom, createModel, type Decoder } from "@tiedlora/models";
import { adapt, defineMethod, init, methods, type PlainMethod } from "tiedlora";

function expect(holds: boolean, what: string): void {
  if (!holds) throw new Error(`expected that ${what}`);
  console.log(`  ok: ${what}`);
}

// --- 1. The declaration. Injection, counting, freezing and files follow from it.

const RANK = 4;
const mirror = defineMethod({
  name: "mirror",
  rank: RANK,
  factors: {
    A: { shape: ["rank", "in"], init: init.normal(), tie: "all" },
    R: { shape: ["out", "in"], init: init.normal(), tie: "all", trained: false },
    u: { shape: ["rank"], init: init.ones() },
    v: { shape: ["out"], init: init.zeros() }, // exactly one factor of the product starts at zero: nothing changes at first
  },
  lowRank: ({ A, R, u, v }) => ({
    A: A.mul(u.unsqueeze(1)),
    B: R.matmul(A.transpose()).mul(v.unsqueeze(1)),
  }),
});

// --- 2. A base model. It learns a game: numbers modulo 12, each three more than the one before it.

const device = await cpu();
const [VOCAB, BATCH, LENGTH] = [12, 16, 12];
const config = configFrom({
  model_type: "llama", vocab_size: VOCAB, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 4,
  num_attention_heads: 4, num_key_value_heads: 4, max_position_embeddings: LENGTH, tie_word_embeddings: true,
  initializer_range: 0.2,
}); // prettier-ignore
const fresh = (): Decoder => createModel(config, { device, seed: 1 });

/** A game: from a random start, every number is `step` more than the one before it, modulo 12. */
function game(step: number, index: number): { inputIds: number[][] } {
  const starts = uniformArray(key(7).fold(step).fold(index), BATCH, 0, VOCAB);
  const row = (start: number): number[] =>
    Array.from({ length: LENGTH }, (_, i) => (Math.floor(start) + i * step) % VOCAB);
  return { inputIds: Array.from(starts, row) };
}

async function train(
  model: Decoder,
  optimizer: optim.Optimizer,
  step: number,
  steps: number,
): Promise<number> {
  for (let i = 0; i < steps; i++) optimizer.step(model.loss(game(step, i)));
  return model.loss(game(step, -1)).item(); // on starts that were drawn apart from training
}

const base = fresh();
const learnt = await train(base, optim.adamW(base.parameters(), { lr: 0.01 }), 3, 100);
console.log(
  `  the base model's loss: ${learnt.toFixed(3)} in its game, ${(await base.loss(game(5, -1)).item()).toFixed(2)} in another`,
);
const values: Float32Array[] = [];
for (const p of base.parameters()) values.push((await p.data()).slice() as Float32Array);
expect(learnt < 0.5, "the base model has learnt its game");

// --- 3. The comparison. Each method teaches a copy of the base model the other game: five more instead of three.

interface Outcome {
  readonly numbers: number;
  readonly start: number;
  readonly end: number;
}

async function measure(method: PlainMethod): Promise<Outcome> {
  const model = fresh();
  for (const [i, p] of model.parameters().entries()) p.set(values[i]!);
  const start = await model.loss(game(5, -1)).item();
  const adapter = adapt(model, method, { seed: 3 });
  const same = await model.loss(game(5, -1)).item();
  expect(Math.abs(same - start) < 1e-5, `${method.name}: at the start the model is unchanged`);
  const trained = adapter.parameters().filter((p) => p.requiresGrad);
  const optimizer = optim.adamW(trained, {
    lr: optim.cosine(0.02, { steps: 250, warmup: 10 }),
    weightDecay: 0,
  });
  const end = await train(model, optimizer, 5, 250);
  return { numbers: trained.reduce((sum, p) => sum + p.size, 0), start, end };
}

const results = new Map<string, Outcome>();
for (const method of [methods.tl6({ rank: RANK }), mirror] as readonly PlainMethod[]) results.set(method.name, await measure(method)); // prettier-ignore
for (const [name, { numbers, start, end }] of results) {
  console.log(
    `  ${name.padEnd(8)} ${String(numbers).padStart(5)} numbers, loss ${start.toFixed(2)} → ${end.toFixed(3)}`,
  );
}

// --- 4. The verdict. One run on one toy task proves little; seeds, tasks and grids are there for more. But it is a beginning.

const [tl6, ours] = [results.get("tl6")!, results.get("mirror")!];
expect(ours.numbers < tl6.numbers, "mirror trains fewer numbers");
expect(tl6.end < 0.5 * tl6.start && ours.end < 0.5 * ours.start, "both halve the loss");
console.log(
  `  ${ours.end < tl6.end ? "and ends lower than TL6 here" : "TL6 ends lower: its own B is worth something"}`,
);

device.close();
