/**
 * Which lengths batches are padded to: the share of padding, and the time of a training step by tokens that are not padding, for several
 * steps between lengths. For each task, TL6 on a decoder of the shape of stories260K trains on batches with the lengths of the task's texts,
 * from the first step on, so that what a new length costs is in it; by turns, one batch for each step between lengths. Elapsed time and CPU time
 * are given as ratios to those of the largest.
 *
 *   npx tsx --conditions=@tiedlora/source bench/padding.ts DATA TOKENIZER [BATCHES] [TASK...]
 *
 * DATA has the directories e2e, dialogsum and gsm8k; TOKENIZER is a directory with a tokenizer, such as GPT-2's.
 */
import { cpus } from "node:os";
import { join } from "node:path";
import { cpu } from "@tiedlora/backend-cpu";
import { directorySource } from "@tiedlora/experiments/node";
import { taskByName, trainingTexts } from "@tiedlora/experiments/tasks";
import { loadTokenizer } from "@tiedlora/models/node";
import { type Batch, batchesOf, encodeExample, type EncodedExample } from "tiedlora";
import { decoderStep, STORIES } from "./decoder.ts";

const STEPS = [1, 4, 8, 16, 32];
const MAX_LENGTH = 512;

const [data, tokenizerDirectory, count = "96", ...named] = process.argv.slice(2);
if (data === undefined || tokenizerDirectory === undefined) {
  throw new Error("give a directory of data sets and one of a tokenizer");
}
const tokenizer = await loadTokenizer(tokenizerDirectory);
const BATCHES = Number(count);
const TASKS = named.length > 0 ? named : ["e2e", "dialogsum", "gsm8k", "summary"];

/** The texts of a task, as many as all batches have, as tokens. */
async function examplesOf(name: string): Promise<EncodedExample[]> {
  const task = taskByName(name);
  const source = directorySource(join(data!, name));
  const split = !task.needsFiles || (await task.has("train", source)) ? "train" : "valid";
  const examples: EncodedExample[] = [];
  for await (const question of task.questions(split, source)) {
    for (const text of trainingTexts(task, question)) {
      const example = encodeExample({ ...text, line: 0 }, tokenizer, { maxLength: MAX_LENGTH });
      if (example) examples.push(example);
      if (examples.length === BATCHES * STORIES.batch) return examples;
    }
  }
  return examples;
}

/** Trains on batches padded by each step between lengths, by turns. */
class Training {
  readonly lengthStep: number;
  readonly lengths: Set<number> = new Set();
  tokens = 0;
  padded = 0;
  cpuMs = 0;
  ms = 0;
  readonly #step: ReturnType<typeof decoderStep>;
  readonly close: () => void;

  constructor(lengthStep: number, device: Awaited<ReturnType<typeof cpu>>) {
    this.lengthStep = lengthStep;
    this.#step = decoderStep(device, STORIES);
    this.close = () => device.close();
  }

  async train({ length, batch, tokenCount }: Batch, seed: number): Promise<void> {
    const [before, start] = [process.cpuUsage(), performance.now()];
    await this.#step(length - 1, seed).data(); // the last token predicts nothing
    const { user, system } = process.cpuUsage(before);
    this.cpuMs += (user + system) / 1000;
    this.ms += performance.now() - start;
    this.lengths.add(length);
    this.tokens += tokenCount;
    this.padded += batch * length;
  }
}

console.log(`${cpus()[0]?.model.trim() ?? "?"}, Node ${process.versions.node}, ${BATCHES} batches`);
console.log("| task | step | lengths | padding | CPU time | elapsed |");
console.log("| --- | --: | --: | --: | --: | --: |");
for (const name of TASKS) {
  const examples = await examplesOf(name);
  const options = { batch: STORIES.batch, maxLength: MAX_LENGTH, seed: 1, padId: 0 };
  const trainings = await Promise.all(STEPS.map(async (step) => new Training(step, await cpu())));
  const sources = STEPS.map((lengthStep) => batchesOf(examples, { ...options, lengthStep }));
  const batches = Math.floor(examples.length / STORIES.batch);
  for (let i = 0; i < batches; i++) {
    for (let k = 0; k < STEPS.length; k++) {
      const turn = (i + k) % STEPS.length;
      await trainings[turn]!.train(sources[turn]!(i), i);
    }
  }
  const last = trainings.at(-1)!;
  for (const one of trainings) {
    const share = (100 * (1 - one.tokens / one.padded)).toFixed(1);
    const ratio = (of: (training: Training) => number): string =>
      (of(one) / one.tokens / (of(last) / last.tokens)).toFixed(2);
    console.log(
      `| ${name} | ${one.lengthStep} | ${one.lengths.size} | ${share} % | ${ratio((t) => t.cpuMs)} | ${ratio((t) => t.ms)} |`,
    );
    one.close();
  }
}
