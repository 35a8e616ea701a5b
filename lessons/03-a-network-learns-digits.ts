/**
 * Lesson 3. A network learns digits.
 *
 *   npx tsx --conditions=@tiedlora/source lessons/03-a-network-learns-digits.ts
 *
 * Ten digits are drawn on 8 × 8 pixels, shifted around and covered with noise, and a network of two layers learns to read
 * them. Everything that training needs is here: data, a model with parameters, a loss, an optimizer, and an honest test on
 * digits that the model has not seen.
 */
import { cpu } from "@tiedlora/backend-cpu";
import { key, type Key, type Tensor, uniformArray } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";

function expect(holds: boolean, what: string): void {
  if (!holds) throw new Error(`expected that ${what}`);
  console.log(`  ok: ${what}`);
}

// --- 1. Data. A digit is five rows of three pixels, as on a pocket calculator.

const SIZE = 8;
const GLYPHS = [
  "### #.# #.# #.# ###", "..# ..# ..# ..# ..#", "### ..# ### #.. ###", "### ..# ### ..# ###", "#.# #.# ### ..# ..#",
  "### #.. ### ..# ###", "### #.. ### #.# ###", "### ..# ..# ..# ..#", "### #.# ### #.# ###", "### #.# ### ..# ###",
]; // prettier-ignore

interface Digits {
  /** [count, 64]: ink from 0 to 1, plus noise. */
  readonly pixels: Float32Array;
  /** [count]: the digit in each picture. */
  readonly labels: Int32Array;
}

/** Random digits. The same key always gives the same digits, on every machine and backend. */
function draw(count: number, k: Key): Digits {
  const noise = uniformArray(k.fold("noise"), count * SIZE * SIZE, -0.4, 0.4);
  const choices = uniformArray(k.fold("choices"), 3 * count);
  const pixels = noise.slice();
  const labels = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    const [which, dx, dy] = [...choices.subarray(3 * i, 3 * i + 3)] as [number, number, number];
    labels[i] = Math.floor(10 * which);
    GLYPHS[labels[i]!]!.split(" ").forEach((row, y) => {
      row.split("").forEach((mark, x) => {
        const at = (y + Math.floor(3 * dy)) * SIZE + x + 1 + Math.floor(4 * dx);
        if (mark === "#") pixels[i * SIZE * SIZE + at]! += 1;
      });
    });
  }
  return { pixels, labels };
}

function show({ pixels, labels }: Digits, i: number): void {
  for (let y = 0; y < SIZE; y++) {
    const row = pixels.subarray((i * SIZE + y) * SIZE, (i * SIZE + y + 1) * SIZE);
    console.log("    " + Array.from(row, (ink) => (ink > 0.75 ? "██" : ink > 0.5 ? "▒▒" : "  ")).join(""));
  }
  console.log(`  this is a ${labels[i]}`);
}

// --- 2. A model is a class with parameters in its fields. `parameters()` finds them by walking the fields.

const device = await cpu();

const HIDDEN = 128;

class Reader extends nn.Module {
  readonly hidden: nn.Linear = nn.Linear.init(SIZE * SIZE, HIDDEN, { device, key: key(1) });
  readonly out: nn.Linear = nn.Linear.init(HIDDEN, 10, { device, key: key(2) });

  /** Pixels [n, 64] -> logits [n, 10]: a score for each digit. Without relu, two layers could do no more than one. */
  forward(pixels: Tensor): Tensor {
    return this.out.forward(this.hidden.forward(pixels).relu());
  }
}

const model = new Reader();
const count = model.parameters().reduce((sum, p) => sum + p.size, 0);
expect(count === 64 * HIDDEN + HIDDEN + HIDDEN * 10 + 10, `the model has ${count} numbers to learn`);

// --- 3. Training: draw a batch, measure the loss, take a step. A step differentiates, updates, and submits one program.

const tensorsOf = ({ pixels, labels }: Digits): [Tensor, Tensor] => [
  device.tensor(pixels, { shape: [labels.length, SIZE * SIZE] }),
  device.tensor(labels),
];

const STEPS = 400;
const optimizer = optim.adamW(model.parameters(), { lr: optim.cosine(0.02, { steps: STEPS, warmup: 20 }) });
const losses: number[] = [];
for (let step = 0; step < STEPS; step++) {
  const [pixels, labels] = tensorsOf(draw(128, key(100 + step)));
  const loss = nn.crossEntropy(model.forward(pixels), labels); // -log of the probability that the model gives to the right digit
  optimizer.step(loss);
  if (step % 100 === 0 || step === STEPS - 1) {
    losses.push(await loss.item());
    console.log(`  step ${step}: loss ${losses.at(-1)!.toFixed(3)}`);
  }
}
expect(Math.abs(losses[0]! - Math.log(10)) < 0.5, "it began by guessing: log 10 = 2.30");
expect(losses.at(-1)! < 0.3, "and ended knowing better");

// --- 4. The test: digits that the model has not seen. A guess would be right one time in ten.

const unseen = draw(500, key(7));
const [pixels, labels] = tensorsOf(unseen);
const guesses = model.forward(pixels).argmax();
const accuracy = await guesses.eq(labels).cast("f32").mean().item();
show(unseen, 0);
console.log(`  the network says ${(await guesses.data())[0]}`);
expect(accuracy > 0.9, `it reads ${(100 * accuracy).toFixed(1)} % of 500 new digits`);
expect(device.memory().cachedPrograms < 10, "four hundred steps needed a handful of programs");

device.close();
