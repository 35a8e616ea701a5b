/** `tiedlora eval`: how well a model predicts the completions of examples, or answers the questions of a task. */
import { dirname, resolve } from "node:path";
import type { Command } from "commander";
import { evaluationBatches, type TextFile } from "tiedlora";
import { DATA_PARTS, dataFile, type DataPart } from "tiedlora/internal/node";
import { directorySource, NO_FILES } from "@tiedlora/experiments/node";
import { evaluateTask } from "@tiedlora/experiments/tasks";
import { taskByName, TASKS } from "@tiedlora/experiments/tasks";
import { firstQuestions } from "@tiedlora/experiments/tasks";
import { evaluate } from "tiedlora";
import { checkOut } from "./checks.ts";
import { checkLength, checkPath, checkSeparator, describeData, openData } from "./load.ts";
import { METRIC_NAMES, type MetricName, METRICS, predictionsOn, scoresOf, writePredictions } from "./eval-texts.ts"; // prettier-ignore
import { addLossFlags, checkLoss, examplesOf, isPlain, lossFor, type LossSettings } from "./loss-settings.ts"; // prettier-ignore
import { oneOf, path, someOf, whole } from "./options.ts";
import type { Output } from "./output.ts";
import { nameOf, UsageError } from "./settings.ts";
import { loadTeacher } from "./teacher.ts";
import { checkPreferences } from "./training-data.ts";
import { addModelFlags, addQuantize, withModel, type ModelFlags, type Opened } from "./with-model.ts";

interface EvalFlags extends ModelFlags, Partial<LossSettings> {
  readonly data?: string;
  readonly split: DataPart;
  readonly task?: string;
  readonly limit?: number;
  readonly promptColumn?: string;
  readonly completionColumn?: string;
  readonly separator?: string;
  readonly batch: number;
  readonly seq: number;
  readonly json?: true;
  readonly metrics?: readonly MetricName[];
  readonly predictions?: string;
  readonly maxTokens?: number;
  readonly stop?: readonly string[];
}

const TASK_NAMES = TASKS.map(({ name }) => name);

export function addEval(program: Command, output: Output): void {
  const command = program.command("eval").description("measure a model on examples, or on a task");
  addLossFlags(addQuantize(addModelFlags(command)))
    .option(
      "--data <path>",
      "a file of examples, a directory with a file for each split, or a task's own files",
    )
    .option(
      "--split <name>",
      `which part of a directory or a task: ${DATA_PARTS.join(", ")}`,
      oneOf(DATA_PARTS),
      "test",
    )
    .option("--task <name>", `ask the questions of a task: ${TASK_NAMES.join(", ")}`, oneOf(TASK_NAMES))
    .option("--limit <n>", "the most examples to measure on", whole(1))
    .option("--prompt-column <name>", "the field that holds the prompt")
    .option("--completion-column <name>", "the field that holds the completion")
    .option(
      "--separator <text>",
      "text between prompt and completion (default: the one that the adapter was trained with)",
    )
    .option("--batch <n>", "examples in memory at once", whole(1), 8)
    .option("--seq <n>", "the most tokens of an example", whole(2), 256)
    .option(
      "--metrics <names>",
      `of examples: judge generated answers, by ${METRIC_NAMES.join(", ")}`,
      someOf(METRIC_NAMES),
    )
    .option(
      "--predictions <file>",
      "write prompt, generated answer, references and scores of each question, as JSON lines",
      path,
    )
    .option(
      "--max-tokens <n>",
      "of --metrics and --predictions: the most tokens of an answer (default: 64)",
      whole(1),
    )
    .option("--stop <text...>", "of --metrics and --predictions: texts that end an answer")
    .option("--json", "print one JSON object")
    .addHelpText(
      "after",
      "\nExamples:\n  tiedlora eval --model ./llama --adapter ./adapter --data test.jsonl\n" +
        "  tiedlora eval --model ./llama --adapter ./adapter --data test.jsonl --metrics exact-match,f1 --predictions answers.jsonl\n" +
        "  tiedlora eval --model ./llama --adapter ./adapter --data pairs.jsonl --loss dpo\n" +
        "  tiedlora eval --model ./llama --adapter ./adapter --task squad --data ./squad --limit 200",
    )
    .action(async (flags: EvalFlags) => {
      if (flags.task === undefined && flags.data === undefined)
        throw new UsageError("--data is missing: give a file of examples, or a --task");
      const own = (["metrics", "maxTokens", "stop"] as const).find((name) => flags[name] !== undefined);
      if (flags.task !== undefined && own !== undefined)
        throw new UsageError(`--${nameOf(own)}: the task ${flags.task} has its own; leave it out`);
      const reading = (["promptColumn", "completionColumn", "separator"] as const).find((name) => flags[name] !== undefined); // prettier-ignore
      if (flags.task !== undefined && reading !== undefined)
        throw new UsageError(`--${nameOf(reading)} is given beside --task ${flags.task}, whose examples have a form of their own; leave it out`); // prettier-ignore
      checkEvalLoss(flags);
      const { metrics, predictions } = flags;
      const alone = metrics === undefined && predictions === undefined ? own : undefined;
      if (alone !== undefined)
        throw new UsageError(`--${nameOf(alone)} belongs to --metrics or --predictions, which are missing`);
      if (predictions !== undefined) await checkOut(dirname(resolve(predictions)));
      if (flags.data !== undefined) await checkPath("--data", flags.data, "file or directory");
      await withModel(flags, output, async (opened) => {
        await checkLength(opened.directory, flags.seq);
        const result =
          flags.task === undefined
            ? await onExamples(opened, flags, flags.data!, output)
            : await onTask(opened, flags, flags.task);
        if (flags.json) output.out(JSON.stringify(result));
        else
          for (const [name, value] of Object.entries(result)) output.out(`${name.padEnd(12)} ${show(value)}`);
      });
    });
}

/** The settings of the loss: --loss and its options. */
const lossOf = ({ loss = "cross-entropy", ...flags }: EvalFlags): LossSettings & EvalFlags => ({ ...flags, loss }); // prettier-ignore

/** Throws UsageError for options of another loss, and for what does not go with preferences. */
function checkEvalLoss(flags: EvalFlags): void {
  const settings = lossOf(flags);
  const { loss } = settings;
  checkLoss(settings);
  checkPreferences(settings);
  if (isPlain(settings)) return;
  if (flags.task !== undefined)
    throw new UsageError(
      `--loss ${loss}: a task is measured by cross-entropy and by its own metrics; give --data`,
    );
  const texts = (["metrics", "predictions"] as const).find((name) => flags[name] !== undefined);
  if (texts !== undefined && examplesOf(settings) !== "texts")
    throw new UsageError(
      `--${texts}: judges single answers, and --loss ${loss} measures preferences; leave one of them out`,
    );
}

type Measures = Readonly<Record<string, number | string>>;

function show(value: number | string): string {
  return typeof value === "string" || Number.isInteger(value) ? String(value) : value.toFixed(4);
}

async function onExamples(opened: Opened, flags: EvalFlags, data: string, output: Output): Promise<Measures> {
  const { model, tokenizer, padId, adapter, separator } = opened;
  const joint = separator === undefined ? {} : { separator };
  const file = (await dataFile(data, flags.split)) ?? (await dataFile(data, "train"))!;
  const dataset = await openData(file, tokenizer, { ...joint, ...flags, data }, model.config);
  checkSeparator(flags, dataset, file.name);
  if (!flags.json) describeData(output, file.name, dataset, flags.seq);
  const examples = dataset.examples.slice(0, flags.limit);
  const batches = evaluationBatches(examples, { batch: flags.batch, maxLength: flags.seq, padId });
  const settings = lossOf(flags);
  const given = lossFor(settings, await loadTeacher(settings, model.device, output, model.streamed !== null));
  const { loss, perplexity, tokens, metrics } = await evaluate(model, batches, adapter ?? undefined, given);
  const scores = await textScores(opened, flags, file);
  const measured = metrics === undefined ? { loss, perplexity } : { loss, ...metrics };
  return { examples: examples.length, tokens, ...measured, ...scores };
}

/** The metrics of generated answers, if metrics or predictions are asked for. */
async function textScores(opened: Opened, flags: EvalFlags, file: TextFile): Promise<Measures> {
  if (flags.metrics === undefined && flags.predictions === undefined) return {};
  const metrics = (flags.metrics ?? []).map((name) => METRICS[name]);
  const options = { maxTokens: flags.maxTokens ?? 64, stop: flags.stop ?? [] };
  const predictions = await predictionsOn(opened, file, flags, flags.separator ?? opened.separator, options);
  if (flags.predictions !== undefined) await writePredictions(flags.predictions, predictions, metrics);
  return scoresOf(predictions, metrics);
}

async function onTask(opened: Opened, flags: EvalFlags, name: string): Promise<Measures> {
  const task = taskByName(name);
  if (task.needsFiles && flags.data === undefined)
    throw new UsageError(`--data is missing: the task ${name} needs the directory of its files`);
  const source = flags.data === undefined ? NO_FILES : directorySource(flags.data);
  const limit = flags.limit ?? (task.needsFiles ? Infinity : 100); // generated tasks never end
  const questions = await firstQuestions(task.questions(flags.split, source), limit);
  const options = { maxLength: flags.seq, batch: flags.batch };
  const lengths = questions.map(({ prompt, answers }) => opened.tokenizer.encode(`${prompt} ${answers[0]}`).length + 1); // prettier-ignore
  const shortest = Math.min(...lengths);
  if (shortest > flags.seq)
    throw new UsageError(`--seq ${flags.seq}: none of ${lengths.length} questions of ${name} fits, the shortest has ${shortest} tokens; give at least --seq ${shortest}`); // prettier-ignore
  const result = await evaluateTask(task, opened, questions, options);
  const { count, skipped, loss, perplexity, scores, texts, asked } = result;
  if (flags.predictions !== undefined) {
    const metrics = task.metrics.filter((one) => one.kind === "text");
    const predictions = asked.map(({ prompt, answers }, i) => ({ prompt, prediction: texts[i]!.trim(), references: answers })); // prettier-ignore
    await writePredictions(flags.predictions, predictions, metrics);
  }
  return { questions: count, left_out: skipped, loss, perplexity, ...scores };
}
