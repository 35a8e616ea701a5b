/**
 * Lesson 6. A transformer.
 *
 *   npx tsx --conditions=@tiedlora/source lessons/06-a-transformer.ts
 *
 * A language model guesses the next token from the tokens before it. Ours has to copy: after eight random letters and a bar,
 * the same letters come again. Nobody can guess the first eight; the second eight are certain for anyone who looks back.
 * Looking back is what attention is for: each position asks a question (q), every position up to it has a key (k) and a value
 * (v), and the answer is the mean of the values, weighted by how well their keys fit the question.
 */
import { cpu } from "@tiedlora/backend-cpu";
import { key, type Key, type Tensor, uniformArray } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";

function expect(holds: boolean, what: string): void {
  if (!holds) throw new Error(`expected that ${what}`);
  console.log(`  ok: ${what}`);
}

const device = await cpu();

// --- 1. Attention by hand, next to the library's. q, k, v: [batch, heads, positions, width of a head].

function attention(q: Tensor, k: Tensor, v: Tensor): Tensor {
  const length = q.shape[2]!;
  const scores = q.matmul(k.transpose()).div(Math.sqrt(q.shape[3]!)); // how well key j fits question i
  const past = device.tensor(new Float32Array(length * length).fill(1), { shape: [length, length] }).tril();
  const seen = scores.mul(past).add(past.sub(1).mul(1e9)); // nobody sees the future
  return seen.softmax().matmul(v);
}

const random = (name: string): Tensor =>
  device.tensor(uniformArray(key(1).fold(name), 2 * 3 * 5 * 4, -1, 1), { shape: [2, 3, 5, 4] });
const [q, k, v] = [random("q"), random("k"), random("v")];
const byHand = attention(q, k, v);
const fast = nn.scaledDotProductAttention(q, k, v, { causal: true }); // never stores the matrix of scores
const apart = await byHand.sub(fast).abs().max().item();
expect(apart < 1e-6, "five lines of attention give what the library's kernel gives");

// --- 2. The model: embed each token, add its position, look back, think about each position alone, and guess.

const LETTERS = "abcdefghij";
const BAR = LETTERS.length;
const [SPAN, DIM, HEADS] = [8, 48, 4];
const LENGTH = 2 * SPAN;

class Block extends nn.Module {
  readonly norm1: nn.LayerNorm = nn.LayerNorm.init(DIM, { device });
  readonly norm2: nn.LayerNorm = nn.LayerNorm.init(DIM, { device });
  readonly attention: nn.CausalSelfAttention;
  readonly mlp: nn.MLP;

  constructor(k: Key) {
    super();
    this.attention = new nn.CausalSelfAttention(DIM, HEADS, { device, key: k.fold("attention") });
    this.mlp = nn.MLP.init(DIM, 4 * DIM, { device, key: k.fold("mlp"), activation: "gelu_tanh" });
  }

  /** Each part adds its result to its input, so that the gradient has a direct path back. */
  forward(x: Tensor): Tensor {
    const h = x.add(this.attention.forward(this.norm1.forward(x)));
    return h.add(this.mlp.forward(this.norm2.forward(h)));
  }
}

class Transformer extends nn.Module {
  readonly tokens: nn.Embedding = nn.Embedding.init(BAR + 1, DIM, { device, key: key(2), std: 0.3 });
  readonly positions: nn.Embedding = nn.Embedding.init(LENGTH, DIM, { device, key: key(3), std: 0.3 });
  readonly blocks: readonly Block[] = [new Block(key(4)), new Block(key(5))];
  readonly norm: nn.LayerNorm = nn.LayerNorm.init(DIM, { device });

  /** Token ids [batch, LENGTH] -> logits [batch, LENGTH, letters]: at each position, a score for every next token. */
  forward(ids: Tensor): Tensor {
    let x = this.tokens.forward(ids).add(this.positions.weight);
    for (const block of this.blocks) x = block.forward(x);
    return this.norm.forward(x).matmul(this.tokens.weight.transpose()); // one table of letters both reads and writes
  }
}

// --- 3. Data: eight letters, a bar, the same eight again. Inputs are all tokens but the last, targets all but the first.

interface Lines {
  readonly ids: Tensor;
  readonly targets: Tensor;
}

function lines(batch: number, k: Key): Lines {
  const letters = uniformArray(k, batch * SPAN, 0, BAR);
  const rows = Array.from({ length: batch }, (_, b) => {
    const span = Array.from(letters.subarray(b * SPAN, (b + 1) * SPAN), Math.floor);
    return [...span, BAR, ...span];
  });
  const tensor = (from: number): Tensor =>
    device.tensor(Int32Array.from(rows.flatMap((row) => row.slice(from, from + LENGTH))), {
      shape: [batch, LENGTH],
    });
  return { ids: tensor(0), targets: tensor(1) };
}

/** The loss asks only for what the model can know: the second half. */
const known = device.tensor(Float32Array.from({ length: LENGTH }, (_, i) => (i >= SPAN ? 1 : 0)));

// --- 4. Training, as in lesson 3.

const model = new Transformer();
const STEPS = 150;
const optimizer = optim.adamW(model.parameters(), {
  lr: optim.cosine(0.01, { steps: STEPS, warmup: 20 }),
  clipNorm: 1,
});
let last = NaN;
for (let step = 0; step < STEPS; step++) {
  const { ids, targets } = lines(32, key(1000 + step));
  const mask = known.expand([32, LENGTH]);
  const loss = nn.crossEntropy(model.forward(ids), targets, { mask });
  optimizer.step(loss);
  if (step % 50 !== 0 && step !== STEPS - 1) continue;
  last = await loss.item();
  console.log(`  step ${step}: loss ${last.toFixed(3)} (guessing: ${Math.log(LETTERS.length).toFixed(2)})`);
}
expect(last < 0.1, "the model has found out that it can look back");

// --- 5. Lines that the model has never seen.

const { ids, targets } = lines(64, key(77));
const guesses = model.forward(ids).argmax();
const right = guesses.eq(targets).cast("f32").mul(known).sum().div(64 * SPAN); // prettier-ignore
const show = async (t: Tensor): Promise<string> => Array.from((await t.data()).subarray(0, LENGTH), (i) => LETTERS[i] ?? "|").join(""); // prettier-ignore
console.log(`  it reads ${await show(ids)} and says, a token ahead, ${await show(guesses)}`);
expect(
  (await right.item()) > 0.98,
  `${(100 * (await right.item())).toFixed(1)} % of the letters are copied right`,
);

device.close();
