/** `tiedlora demo`: adapts the embedded base model to one of the toy tasks, and shows the difference. */
import type { Command } from "commander";
import { generateText, adaptableSpecs, parameterSpecs } from "@tiedlora/models";
import type { Pretrained } from "@tiedlora/models/node";
import { adapt, adapterOptimizer } from "tiedlora";
import { batchesOf, stackBatch } from "tiedlora";
import { encodeExample, type EncodedExample } from "tiedlora";
import {
  type Example,
  TOY_TASK_NAMES,
  TOY_TASKS,
  toyExamples,
  type ToyTaskName,
} from "@tiedlora/experiments/toy-tasks";
import { METHOD_NAMES, methodByName, type MethodName } from "tiedlora";
import { loadBase } from "@tiedlora/experiments/node";
import { countParameters } from "tiedlora";
import { lossInputs, train } from "tiedlora";
import { BACKEND_NAMES, withDevice, type BackendName } from "./device.ts";
import { methodName, number, oneOf, whole } from "./options.ts";
import { paint, type Output } from "./output.ts";
import { ProgressLine } from "./progress.ts";

interface DemoCommand {
  readonly task: ToyTaskName;
  readonly method: MethodName;
  readonly rank: number;
  readonly steps: number;
  readonly lr?: number;
  readonly seed: number;
  readonly backend: BackendName;
}

const TRAIN_EXAMPLES = 4000;
const HELD_OUT = 48;
const BATCH = 16;
const MAX_TOKENS = 97;
const SHOWN = 3;
/** Queries, keys and values, as in the paper: the documentation's results of the demo were measured with this target. */
const TARGET = "qkv";

export function addDemo(program: Command, output: Output): void {
  program
    .command("demo")
    .description("adapt the small base model that comes with this package, in about a minute")
    .option("--task <name>", TOY_TASK_NAMES.join(", "), oneOf(TOY_TASK_NAMES), "translation")
    .option("--method <name>", METHOD_NAMES.join(", "), methodName, "tl6")
    .option("--rank <n>", "rank of the update", whole(1), 8)
    .option("--steps <n>", "training steps", whole(1), 150)
    .option("--lr <x>", "highest learning rate (default: the method's own)", number({ above: 0 }))
    .option("--seed <n>", "the seed of all randomness", whole(0), 0)
    .option("--backend <name>", "cpu, webgpu, or reference (slow, float64)", oneOf(BACKEND_NAMES), "cpu")
    .addHelpText("after", "\nExample:\n  tiedlora demo --task extraction --method tl6 --rank 2")
    .action(async (options: DemoCommand) => {
      await withDevice(options.backend, async (device) => demo(options, output, await loadBase({ device })));
    });
}

async function demo(options: DemoCommand, output: Output, base: Pretrained): Promise<void> {
  const { task, seed } = options;
  const encode = (example: Example): EncodedExample => {
    const encoded = encodeExample({ ...example, line: 0 }, base.tokenizer, { maxLength: MAX_TOKENS });
    if (encoded === null) throw new RangeError(`an example of ${task} is longer than ${MAX_TOKENS} tokens`);
    return encoded;
  };
  const heldOut = toyExamples(task, "valid", HELD_OUT, seed);
  const judge = async (): Promise<Judgement> => judged(base, heldOut, heldOut.map(encode));
  introduce(options, output, base);
  const before = await judge();
  output.info(
    `before     loss ${before.loss.toFixed(3)}, ${before.right} of ${HELD_OUT} answers exactly right\n`,
  );

  const adapter = await adapt(
    base.model,
    methodByName(options.method, { rank: options.rank, target: TARGET }),
    { seed },
  );
  const progress = new ProgressLine(output, false);
  const reports = train({
    model: base.model,
    adapter,
    optimizer: adapterOptimizer(adapter, { steps: options.steps, lr: options.lr }),
    steps: options.steps,
    batch: batchesOf(toyExamples(task, "train", TRAIN_EXAMPLES, seed).map(encode), {
      batch: BATCH,
      maxLength: MAX_TOKENS,
      seed,
      padId: base.padId,
    }),
  });
  for await (const report of reports) progress.report(report);
  progress.end();
  conclude(options, output, { heldOut, before, after: await judge() });
}

interface Judgement {
  /** The mean loss over the tokens of the answers, in nats. */
  readonly loss: number;
  readonly answers: readonly string[];
  readonly right: number;
}

/** Evaluates the model in its current state on examples that it is not trained on. */
async function judged(
  { model, tokenizer, padId }: Pretrained,
  examples: readonly Example[],
  encoded: readonly EncodedExample[],
): Promise<Judgement> {
  const loss = await model.loss(lossInputs(model, stackBatch(encoded, MAX_TOKENS, padId))).item();
  const longest = Math.max(...encoded.map(({ tokens, spans }) => tokens.length - spans[0]![0]));
  const prompts = examples.map(({ prompt }) => prompt);
  const answers = await generateText(model, tokenizer, prompts, { maxTokens: longest + 4 });
  const right = answers.filter((answer, i) => answer.trim() === examples[i]!.completion.trim()).length;
  return { loss, answers, right };
}

function introduce({ task, method, rank }: DemoCommand, output: Output, { model }: Pretrained): void {
  const [linears, parameters] = [adaptableSpecs(model.config), parameterSpecs(model.config)];
  const count = (name: MethodName): number =>
    countParameters(linears, methodByName(name, { rank, target: TARGET }), parameters).trainable;
  const [own, lora] = [count(method), count("lora")];
  const size = model.parameters().reduce((sum, p) => sum + p.size, 0);
  const n = (value: number): string => value.toLocaleString("en-US");
  const { title, like } = TOY_TASKS[task];
  const share = method === "lora" ? "" : ` (LoRA: ${n(lora)}; this is ${((100 * own) / lora).toFixed(0)} %)`;
  output.info(
    `base       ${n(size)} parameters, ${model.config.layers} layers; has read short stories, never a task (${model.device.name})`,
  );
  output.info(`task       ${paint("bold", task)}: ${title}, like ${like}`);
  output.info(`adapter    ${paint("bold", method)}, rank ${rank}: ${n(own)} trainable parameters${share}`);
}

interface Outcome {
  readonly heldOut: readonly Example[];
  readonly before: Judgement;
  readonly after: Judgement;
}

function conclude(options: DemoCommand, output: Output, { heldOut, before, after }: Outcome): void {
  output.info("");
  for (const [i, { prompt, completion }] of heldOut.slice(0, SHOWN).entries()) {
    output.info(paint("bold", prompt));
    output.info(`  before   ${before.answers[i]!.trim()}`);
    output.info(`  after    ${paint("cyan", after.answers[i]!.trim())}`);
    output.info(`  right    ${paint("dim", completion.trim())}\n`);
  }
  output.info(
    `on ${HELD_OUT} examples that were held out: loss ${before.loss.toFixed(3)} -> ${paint("green", after.loss.toFixed(3))}, ` +
      `exactly right ${before.right} -> ${paint("green", String(after.right))}`,
  );
  const others = TOY_TASK_NAMES.filter((name) => name !== options.task);
  output.info(`\nnext: npx tiedlora demo --task ${others[0]}   (or ${others.slice(1).join(", ")})`);
  output.info(`      npx tiedlora demo --task ${options.task} --method lora   (or another; --rank 2)`);
  output.info(`      npx tiedlora train --help   to adapt a model of yours to data of yours`);
}
