/**
 * Pretrains a base model that is embedded in @tiedlora/experiments, on generated stories alone, and writes its Hugging Face
 * directory. It takes about twenty minutes on two cores; a stopped run continues from its last checkpoint.
 *
 *   npm run pretrain                     # writes packages/experiments/assets/base
 *   npm run pretrain -- --shape gpt2     # writes packages/experiments/assets/base-gpt2
 *   npm run pretrain -- --out DIR --steps 500 --cache DIR
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { cpu } from "@tiedlora/backend-cpu";
import { memoryFiles } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";
import { writeFilesAtomic } from "@tiedlora/core/node";
import { configFrom, createModel, Decoder, loadTokenizerFrom, modelFiles } from "@tiedlora/models";
import { loadCheckpoint, saveCheckpoint } from "./pretrain/checkpoint.ts";
import { initAttention } from "./pretrain/init.ts";
import { GENERATION, learningRate, RECIPE, SEEDS, SHAPES } from "./pretrain/recipe.ts";
import { TokenStream } from "./pretrain/stream.ts";
import { baseTokenizer } from "./pretrain/tokenizer.ts";

const { values: args } = parseArgs({
  options: {
    shape: { type: "string", default: "llama" },
    out: { type: "string" },
    cache: { type: "string" },
    steps: { type: "string", default: String(RECIPE.steps) },
    threads: { type: "string" },
  },
});
const steps = Number(args.steps);
if (!Number.isSafeInteger(steps) || steps < 1)
  throw new RangeError(`--steps ${args.steps}: expected a whole number from 1 on`);

const shape = named(SHAPES, args.shape);
const {
  out = join("packages/experiments/assets", shape.directory),
  cache = join(".cache/pretrain", shape.directory),
} = args;
const { batch, length, betas, weightDecay, clipNorm, every } = RECIPE;
const tokenizerText = baseTokenizer();
const tokenizer = await loadTokenizerFrom(memoryFiles(new Map(Object.entries(tokenizerText))));
const device = await cpu(args.threads === undefined ? {} : { threads: Number(args.threads) });
const model = createModel(configFrom(shape.config), { device, seed: SEEDS.weights });
initAttention(model, SEEDS.weights);
const optimizer = optim.adamW(model.parameters(), {
  lr: learningRate(steps),
  betas: [...betas],
  weightDecay,
  clipNorm,
});
console.log(
  `${model.parameters().reduce((n, p) => n + p.size, 0)} parameters, ${steps} steps of ${batch * length} tokens`,
);

function named<T>(table: Readonly<Record<string, T>>, name: string): T {
  const found = Object.hasOwn(table, name) ? table[name] : undefined;
  if (found === undefined)
    throw new RangeError(`--shape ${name}: expected ${Object.keys(table).join(" or ")}`);
  return found;
}

/** The mean loss on text of another seed, which is the same each time. */
async function validate(): Promise<number> {
  const stream = new TokenStream(tokenizer, SEEDS.validation);
  let sum = 0;
  for (let i = 0; i < RECIPE.validationBatches; i++) {
    sum += await model.loss({ inputIds: stream.next(batch, length + 1) }).item();
  }
  return sum / RECIPE.validationBatches;
}

/** The model with weights in half precision, which is the one that is embedded. */
async function halved(): Promise<Decoder> {
  const weights = new Map<string, Float32Array>();
  for (const [path, p] of model.stateDict()) weights.set(path, (await p.data()) as Float32Array);
  return new Decoder(model.config, device, (path, shape) =>
    nn.Parameter.from(device, weights.get(path)!, shape, "f16", path),
  );
}

await mkdir(cache, { recursive: true });
const checkpoint = join(cache, "checkpoint.safetensors");
const stream = new TokenStream(
  tokenizer,
  SEEDS.training,
  (await loadCheckpoint(checkpoint, { model, optimizer })) ?? undefined,
);
if (optimizer.stepCount > 0) console.log(`continuing after step ${optimizer.stepCount}`);
const start = performance.now();
const first = optimizer.stepCount;
while (optimizer.stepCount < steps) {
  const loss = model.loss({ inputIds: stream.next(batch, length + 1) });
  optimizer.step(loss);
  const step = optimizer.stepCount;
  if (step % 50 === 0) {
    const perStep = (performance.now() - start) / 1000 / (step - first);
    const left = Math.round((perStep * (steps - step)) / 60);
    console.log(
      `step ${step}/${steps}  loss ${(await loss.item()).toFixed(4)}  ${Math.round((batch * length) / perStep)} tokens/s  ${left} min left`,
    );
  }
  if (step % every === 0 || step === steps) {
    console.log(`step ${step}/${steps}  validation loss ${(await validate()).toFixed(4)}`);
    await saveCheckpoint(checkpoint, { model, optimizer }, stream.position);
  }
}
await writeFilesAtomic(out, [
  ...Object.entries(tokenizerText),
  ["generation_config.json", `${JSON.stringify(GENERATION, null, 2)}\n`],
  ...modelFiles(await halved()),
]);
console.log(`written to ${out}`);
device.close();
