/** `tiedlora train`: fine-tunes a model directory on a file of examples, and saves the adapter. */
import { access, constants } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import type { Command } from "commander";
import { optim } from "@tiedlora/core";
import { type Decoder, generateText, type Tokenizer } from "@tiedlora/models";
import { loadModel, loadTokenizer } from "@tiedlora/models/node";
import { adapt, type Adapter } from "../adapter.ts";
import type { Example } from "../data/examples.ts";
import { batchesOf, loadDataset, type Dataset } from "../data/dataset.ts";
import { methodByName, type MethodName } from "../methods/index.ts";
import type { Method } from "../method.ts";
import { saveAdapter, textFile } from "../node/files.ts";
import type { Modules } from "../sites.ts";
import { train } from "../train/train.ts";
import { BACKEND_NAMES, withDevice, type BackendName } from "./device.ts";
import { methodName, number, oneOf, target, whole } from "./options.ts";
import { paint, type Output } from "./output.ts";
import { ProgressLine } from "./progress.ts";

const SCHEDULES = ["constant", "linear", "cosine"] as const;

interface TrainCommand {
  readonly model: string;
  readonly data: string;
  readonly promptColumn?: string;
  readonly completionColumn?: string;
  readonly separator: string;
  readonly method: MethodName;
  readonly rank: number;
  readonly alpha?: number;
  readonly target: Modules;
  readonly dropout: number;
  readonly steps: number;
  readonly batch: number;
  readonly seq: number;
  readonly lr: number;
  readonly schedule: (typeof SCHEDULES)[number];
  readonly warmup: number;
  readonly weightDecay: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly clip?: number;
  readonly seed: number;
  readonly backend: BackendName;
  readonly out: string;
  readonly json?: true;
}

export function addTrain(program: Command, output: Output): void {
  program
    .command("train")
    .description("fine-tune a model on a file of prompts and completions, and save the adapter")
    .requiredOption("--model <dir>", "the base model: a Hugging Face directory")
    .requiredOption("--data <file>", "examples: .csv, .tsv, .jsonl or .txt")
    .option("--prompt-column <name>", "the field that holds the prompt")
    .option("--completion-column <name>", "the field that holds the completion; the loss is on it alone")
    .option("--separator <text>", "put between prompt and completion where neither has white space", " ")
    .option("--method <name>", "lora, vera, or tl1 to tl6", methodName, "tl6")
    .option("--rank <n>", "rank of the update", whole(1), 8)
    .option("--alpha <x>", "scale of the update times its rank (default: the rank)", number({ above: 0 }))
    .option("--target <modules>", "qkv, all-linear, module names, or /pattern/", target, "qkv")
    .option("--dropout <p>", "dropout of the adapter's input", number({ min: 0, below: 1 }), 0)
    .option("--steps <n>", "training steps", whole(1), 100)
    .option("--batch <n>", "examples a step", whole(1), 4)
    .option("--seq <n>", "the most tokens of an example", whole(2), 256)
    .option("--lr <x>", "learning rate", number({ above: 0 }), 1e-3)
    .option("--schedule <name>", "constant, linear or cosine", oneOf(SCHEDULES), "constant")
    .option("--warmup <n>", "steps over which the learning rate rises", whole(0), 0)
    .option("--weight-decay <x>", "AdamW's weight decay", number({ min: 0 }), 0.01)
    .option("--beta1 <x>", "AdamW's decay rate of the mean", number({ min: 0, below: 1 }), 0.9)
    .option("--beta2 <x>", "AdamW's decay rate of the square", number({ min: 0, below: 1 }), 0.98)
    .option("--clip <x>", "the largest norm of the gradients together", number({ above: 0 }))
    .option("--seed <n>", "all randomness follows from it", whole(0), 0)
    .option("--backend <name>", "cpu, webgpu, or reference (slow, float64)", oneOf(BACKEND_NAMES), "cpu")
    .requiredOption("--out <dir>", "where the adapter is saved")
    .option("--json", "print one JSON object a step instead of the progress line")
    .addHelpText(
      "after",
      "\nExample:\n  tiedlora train --model ./llama --data train.jsonl --method tl6 --rank 8 --steps 200 --lr 3e-3 --out ./adapter",
    )
    .action(async (options: TrainCommand) => {
      await checkWritable(options.out);
      const file = await textFile(options.data);
      const method = methodByName(options.method, {
        rank: options.rank,
        ...(options.alpha !== undefined && { alpha: options.alpha }),
        target: options.target,
        dropout: options.dropout,
      });
      await withDevice(options.backend, async (device) => {
        const tokenizer = await loadTokenizer(options.model);
        const model = await loadModel(options.model, { device });
        const dataset = await loadDataset(file, tokenizer, {
          prompt: options.promptColumn,
          completion: options.completionColumn,
          separator: options.separator,
          maxLength: options.seq,
        });
        await run({ options, output, model, tokenizer, dataset, method });
      });
    });
}

interface Run {
  readonly options: TrainCommand;
  readonly output: Output;
  readonly model: Decoder;
  readonly tokenizer: Tokenizer;
  readonly dataset: Dataset;
  readonly method: Method;
}

async function run(context: Run): Promise<void> {
  const { options, output, model, tokenizer, dataset, method } = context;
  const adapter = await adapt(model, method, { seed: options.seed });
  describe(context, adapter);
  await showSample(context, "before");
  const interrupt = new AbortController();
  const onInterrupt = (): void => interrupt.abort();
  process.once("SIGINT", onInterrupt);
  const progress = new ProgressLine(output, options.json === true);
  try {
    const reports = train({
      model,
      adapter,
      optimizer: optimizerOf(adapter, options),
      steps: options.steps,
      batch: batchesOf(dataset.examples, {
        batch: options.batch,
        maxLength: options.seq,
        seed: options.seed,
        padId: tokenizer.padId ?? tokenizer.eosId ?? 0,
      }),
      signal: interrupt.signal,
    });
    for await (const report of reports) progress.report(report);
  } finally {
    process.removeListener("SIGINT", onInterrupt);
  }
  progress.end();
  await showSample(context, "after");
  await saveAdapter(adapter, options.out, provenanceOf(options, progress.steps));
  output.info(`adapter saved in ${options.out}`);
  if (interrupt.signal.aborted) {
    output.info(`interrupted after ${progress.steps} of ${options.steps} steps`);
    process.exitCode = 130;
  }
}

function optimizerOf(adapter: Adapter, options: TrainCommand): optim.AdamW {
  const { lr, warmup, steps, schedule, weightDecay, beta1, beta2, clip } = options;
  return optim.adamW(adapter.parameters(), {
    lr: schedule === "constant" ? optim.constant(lr, { warmup }) : optim[schedule](lr, { warmup, steps }),
    betas: [beta1, beta2],
    weightDecay,
    ...(clip !== undefined && { clipNorm: clip }),
  });
}

/** What is about to happen, in a few lines. */
function describe({ options, output, model, dataset, method }: Run, adapter: Adapter): void {
  const { trainable } = adapter.count();
  const { examples, truncated, skipped } = dataset;
  output.info(
    `${paint("bold", method.name)} rank ${method.rank} on ${options.model} (${model.device.name}): ` +
      `${trainable.toLocaleString("en-US")} trainable parameters in ${adapter.plan.sites.length} modules`,
  );
  output.info(`${examples.length} examples from ${options.data}`);
  if (truncated > 0) output.info(`${truncated} of them are cut off at ${options.seq} tokens (--seq)`);
  if (skipped.length > 0) {
    const lines = skipped.slice(0, 5).join(", ") + (skipped.length > 5 ? ", ..." : "");
    output.info(
      `${skipped.length} left out: their prompts fill ${options.seq} tokens (--seq); lines ${lines}`,
    );
  }
}

/** What the model makes of the first example's prompt. */
async function showSample(
  { output, model, tokenizer, dataset }: Run,
  when: "before" | "after",
): Promise<void> {
  const prompt = samplePrompt(dataset.sample);
  const [text = ""] = await generateText(model, tokenizer, [prompt], { maxTokens: SAMPLE_TOKENS });
  output.info(`${paint("dim", `${when} training:`)} ${prompt}${paint("cyan", text)}`);
}

const SAMPLE_TOKENS = 48;

/** The prompt of an example; of one that has none, its first words. */
function samplePrompt({ prompt, completion }: Example): string {
  return prompt === "" ? completion.trim().split(/\s+/).slice(0, 5).join(" ") : prompt;
}

function provenanceOf(options: TrainCommand, steps: number): Record<string, string> {
  const { model, data, seed, lr, batch, seq, backend, schedule, warmup, weightDecay } = options;
  return {
    base_model: model,
    data,
    ...Object.fromEntries(
      Object.entries({ seed, steps, lr, batch, seq, backend, schedule, warmup, weightDecay }).map(
        ([key, value]) => [key, String(value)],
      ),
    ),
  };
}

/** Finds out before the work, not after it, that the adapter cannot be saved. */
async function checkWritable(directory: string): Promise<void> {
  let path = resolve(directory);
  for (;;) {
    try {
      await access(path, constants.W_OK);
      return;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== "ENOENT" || dirname(path) === path)
        throw new Error(`--out ${directory}: cannot write in ${path} (${code}); give another directory`, {
          cause: error,
        });
      path = dirname(path);
    }
  }
}
