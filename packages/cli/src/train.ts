/** `tiedlora train`: fine-tunes a model on a file of examples, and saves the adapter. */
import { join } from "node:path";
import type { Command } from "commander";
import type { Device } from "@tiedlora/core";
import type { Decoder, Tokenizer } from "@tiedlora/models";
import { loadPretrained } from "@tiedlora/models/node";
import { stepsPerEpoch } from "tiedlora";
import type { Adapter, Loss } from "tiedlora";
import { describeTies } from "tiedlora/internal";
import { type Callbacks, loadCallbacks, Telling } from "./run/callbacks.ts";
import { baselineOf, metricsOf } from "./run/metrics.ts";
import { runIn, type RunResult } from "./run/run.ts";
import { lastState, RunFolder } from "./run/run-folder.ts";
import { isWriteError } from "tiedlora/internal/node";
import { saveMerged } from "tiedlora/node";
import { checkOut } from "./checks.ts";
import { withDevice } from "./device.ts";
import { chatTemplate } from "./chat-templates.ts";
import { checkLength, checkSeparator, tokensOf } from "./load.ts";
import { checkLoss, lossFor } from "./loss-settings.ts";
import { findModel, type Found, pinned } from "./find-model.ts";
import { interruptible } from "./interrupt.ts";
import { averageOf, checkOptimizer, optimizerOf } from "./optimizer.ts";
import { Interrupted, OutputError, paint, shellWord, type Output } from "./output.ts";
import { describeQuantized, quantizeOption } from "./quantized.ts";
import { ProgressLine } from "./progress.ts";
import { rankScheduleOf } from "./rank-schedule.ts";
import { parseAddress } from "./queue/address.ts";
import { modelDigest } from "./queue/identity.ts";
import { QueueServer } from "./queue/server.ts";
import { TrainingQueue } from "./queue/training/coordinator.ts";
import { absolute, namedSettings, provenanceOf } from "./recorded.ts";
import { runSettings } from "./run-file.ts";
import { sampleOf } from "./sample.ts";
import { addSettings, nameOf, UsageError } from "./settings.ts";
import {
  checkInitFrom,
  findInitFrom,
  type Given,
  quantizeAsBefore,
  startAdapter,
  type Started,
} from "./start-adapter.ts";
import { adaptAtStart, checkStart } from "./starts.ts";
import { decideStreaming } from "./streaming.ts";
import { checkMethod } from "./method-settings.ts";
import { TRAIN_SETTINGS, type TrainSettings } from "./train-settings.ts";
import { checkData, findData, readData, STANDARD_INPUT, type TrainingData } from "./training-data.ts";
import { loadTeacher } from "./teacher.ts";
import { settingsYaml } from "./yaml.ts";

interface TrainFlags extends Record<string, unknown> {
  readonly config?: string;
  readonly resume?: true;
  readonly restart?: true;
  readonly json?: true;
  readonly queue?: string;
}

const EXAMPLES = `
Examples:
  tiedlora train --model ./llama --data train.jsonl --method tl6 --rank 8 --steps 200 --lr 3e-3 --out ./adapter
  tiedlora train --config run.yaml --rank 4 --out ./rank4
  tiedlora train --resume --out ./adapter
  tiedlora train --init-from ./adapter --model ./llama --data more.jsonl --steps 100 --out ./adapter2`;

export function addTrain(program: Command, output: Output): void {
  const command = program.command("train").description("fine-tune a model on examples, and save the adapter");
  addSettings(command, TRAIN_SETTINGS)
    .option("--resume", "continue the run in --out from its last checkpoint, with its settings")
    .option("--restart", "throw away the run in --out, and start anew")
    .option(
      "--queue <url>",
      "let workers compute the batches of a step (tiedlora worker); needs --accumulate: redis://… or postgres://…",
    )
    .option("--json", "print one JSON object per step instead of the progress line")
    .addHelpText("after", EXAMPLES)
    .action(async (flags: TrainFlags) => {
      const { settings, given, resume } = await runSettings(flags);
      checkLoss(settings);
      checkOptimizer(settings);
      checkMethod(settings);
      checkStart(settings);
      checkQueue(flags.queue, settings);
      await checkOut(settings.out);
      const folder = await RunFolder.open(
        settings.out,
        resume ? "resume" : flags.restart ? "restart" : "new",
      );
      try {
        if ((await trainIn(folder, { settings, given }, output, flags)) === "interrupted")
          throw new Interrupted();
      } finally {
        await folder.close();
      }
    });
}

async function trainIn(
  folder: RunFolder,
  { settings: asked, given }: Given,
  output: Output,
  { resume, json, queue }: TrainFlags,
): Promise<RunResult["ended"]> {
  const { settings, initName } =
    folder.last === null ? await findInitFrom(asked, output) : { settings: asked };
  if (folder.last === null) await checkInitFrom(settings);
  const found = await findModel(settings.model, output);
  await checkData(settings);
  const callbacks = settings.callbacks === undefined ? {} : await loadCallbacks(settings.callbacks);
  await checkLength(found.directory, settings.seq);
  const quantize = folder.last === null ? await quantizeAsBefore(settings, found, output) : settings.quantize;
  const server = queue === undefined ? null : await QueueServer.open(queue, output);
  try {
    return await withDevice(settings.backend, (device) =>
      trainCommand({
        folder,
        found,
        ...(initName !== undefined && { initName }),
        settings: { ...settings, ...(quantize !== undefined && { quantize }) },
        given,
        output,
        device,
        server,
        callbacks,
        resume: resume === true,
        json: json === true,
      }),
    );
  } finally {
    await server?.close();
  }
}

interface Context extends Given {
  readonly folder: RunFolder;
  /** The base model. */
  readonly found: Found;
  /** The name of the adapter that the run starts from, with its commit, if it is from the hub. */
  readonly initName?: string;
  readonly output: Output;
  readonly device: Device;
  /** The server of the queue whose workers compute the gradients; null if they are computed here. */
  readonly server: QueueServer | null;
  readonly callbacks: Callbacks;
  readonly resume: boolean;
  readonly json: boolean;
}

interface Prepared extends Started {
  readonly model: Decoder;
  readonly tokenizer: Tokenizer;
  readonly padId: number;
  readonly data: TrainingData;
  /** The loss that is trained; undefined for the model's own. */
  readonly loss: Loss | undefined;
  /** The chat template that is trained in place of the model's. */
  readonly chatTemplate: string | undefined;
}

async function trainCommand(context: Context): Promise<RunResult["ended"]> {
  const { output } = context;
  const prepared = await prepare(context);
  const { settings } = prepared;
  await showSample(output, "before", prepared, settings);
  const result = await runTraining(context, prepared).catch(async (error: unknown) => {
    if (isWriteError(error) || error instanceof OutputError) await announceSaved(context);
    throw error;
  });
  await showSample(output, "after", prepared, settings);
  if (settings.method === "full" && result.ended !== "interrupted") await saveWhole(context, prepared);
  conclude(output, settings, result);
  return result.ended;
}

/** Writes the model that full fine-tuning has made, which loads as any other. */
async function saveWhole({ found, output }: Context, { model, settings }: Prepared): Promise<void> {
  const directory = join(settings.out, "model");
  await saveMerged(model, directory, { copyFrom: found.directory });
  output.info(`the whole model is saved in ${directory}`);
}

/** Loads everything and puts the adapter on the model; nothing has been written yet. */
async function prepare({ folder, found, given, output, device, ...context }: Context): Promise<Prepared> {
  const asked = context.settings;
  const sources = await findData(asked);
  checkPatience(asked, sources.held);
  const template = asked.chatTemplate === undefined ? undefined : await chatTemplate(asked.chatTemplate);
  const quantize = quantizeOption(asked.quantize);
  const {
    model,
    tokenizer: own,
    padId,
  } = await loadPretrained(found.directory, {
    device,
    ...quantize,
    stream: await decideStreaming(found.directory, device, {
      ...asked,
      quantize: undefined,
      ...quantize,
      step: { ...asked, tokens: tokensOf(found.directory, sources.file, asked) },
      output,
    }),
  });
  // The settings of how data is read may come from an adapter, and a start from data needs the data.
  const starts = asked.init !== undefined && folder.last === null;
  const early = starts ? null : await startAdapter(model, { settings: asked, given }, folder, output);
  const settings = early?.settings ?? asked;
  const tokenizer = template === undefined ? own : own.withChatTemplate(template);
  const loss = lossFor(settings, await loadTeacher(settings, device, output, model.streamed !== null));
  model.checkpointing = settings.checkpointing;
  model.activations = settings.activations;
  if (early !== null) describeAdapter(early.adapter, settings, output);
  const weights = describeQuantized(model);
  if (weights !== null) output.info(weights);
  else if (quantize.quantize !== undefined)
    output.info(`${paint("yellow", "note:")} --quantize ${quantize.quantize}: no row of this model's matrices can be divided into groups, so none is quantized`); // prettier-ignore
  const data = await readData(sources, settings, tokenizer, model.config, output, padId);
  if (given.has("separator")) checkSeparator(settings, data.dataset, asked.data);
  const { examples } = data;
  const made = early?.adapter ?? (await adaptAtStart(model, settings, { device, directory: found.directory, examples, output })); // prettier-ignore
  const adapter = checkRegularized(made, settings);
  if (early === null) describeAdapter(adapter, settings, output);
  return { settings, model, tokenizer, padId, data, adapter, loss, chatTemplate: template };
}

/** Throws UsageError for a regularizer of matrices if none is trained. */
function checkRegularized(adapter: Adapter, { regularize = {}, method }: TrainSettings): Adapter {
  if ("orthogonal" in regularize && !adapter.trainableParameters().some(({ shape }) => shape.length === 2))
    throw new UsageError(`--regularize orthogonal: ${method} trains no matrix; take another regularizer`);
  return adapter;
}

function describeAdapter(adapter: Adapter, { model, bias }: TrainSettings, output: Output): void {
  const { method, plan } = adapter;
  if (bias !== "none" && !plan.replaced.some(({ path }) => path.endsWith(".bias")))
    output.info(`${paint("yellow", "note:")} --bias ${bias}: the model has no such biases, so none is trained`); // prettier-ignore
  const trainable = adapter.count().trainable.toLocaleString("en-US");
  const rank = plan.sites.length === 0 ? "" : ` rank ${method.rank}`;
  const where =
    plan.sites.length === 0
      ? `in ${plan.replaced.length} of the model's own`
      : `in ${plan.sites.length} modules`;
  output.info(
    `${paint("bold", method.name)}${rank} on ${model} (${deviceName(adapter)}): ` +
      `${trainable} trainable parameters ${where}${describeTies(plan)}`,
  );
}

const deviceName = (adapter: Adapter): string => adapter.parameters()[0]!.device!.name;

async function runTraining(context: Context, prepared: Prepared): Promise<RunResult> {
  const { folder, found, initName, output, resume, json } = context;
  const { settings, model, padId, data, adapter, loss, chatTemplate: template } = prepared;
  const { dataset, examples, valid } = data;
  const steps = stepsOf(settings, examples.length);
  if (resume) announceResume(context, steps);
  const progress = new ProgressLine(output, json);
  const telling = new Telling(context.callbacks);
  telling.tell("onStart", {
    out: settings.out,
    settings: namedSettings(settings),
    steps,
    from: folder.last?.step ?? 0,
  });
  return interruptible(async (signal) => {
    const queue = await openQueue(context, prepared, signal);
    try {
      const result = await runIn(folder, {
        model,
        adapter,
        optimizer: optimizerOf(adapter, settings, steps),
        average: averageOf(adapter, settings),
        directory: settings.out,
        examples,
        ...(data.batch !== undefined && { batches: data.batch }),
        valid: valid ?? undefined,
        ...(loss !== undefined && { loss }),
        fingerprint: dataset.fingerprint,
        steps,
        batch: settings.batch,
        accumulate: settings.accumulate,
        maxLength: settings.seq,
        seed: settings.seed,
        padId,
        ...(settings.rankSchedule !== undefined && { ranks: rankScheduleOf(adapter, settings, steps) }),
        evalEvery: settings.evalEvery,
        patience: settings.patience,
        saveEvery: settings.saveEvery,
        log: settings.log,
        resume,
        settings: settingsYaml(TRAIN_SETTINGS, absolute(settings, found, initName)),
        provenance: {
          ...provenanceOf(
            { ...settings, ...(initName !== undefined && { initFrom: initName }) },
            steps,
            found,
          ),
          ...(template !== undefined && { chat_template: template }),
        },
        signal,
        ...(queue !== null && { gradients: queue.gradients }),
        onStart: (evaluation) => {
          progress.baseline(evaluation);
          telling.tell("onEvaluate", baselineOf(evaluation));
        },
        onStep: (report, evaluation) => {
          progress.report(report, evaluation);
          telling.tell("onStep", metricsOf(report, null));
          if (evaluation !== null)
            telling.tell("onEvaluate", { ...baselineOf(evaluation), step: report.step });
        },
      });
      telling.tell("onEnd", result);
      await telling.end();
      return result;
    } finally {
      await telling.settled();
      progress.end();
      await queue?.close();
    }
  });
}

/** Announces the training on the queue, if there is one. */
async function openQueue(
  { server, found, output }: Context,
  { adapter, settings, data: { dataset } }: Prepared,
  signal: AbortSignal,
): Promise<TrainingQueue | null> {
  if (server === null) return null;
  const { model, data, teacher } = absolute(settings, found, undefined);
  const taught = teacher === undefined ? null : await findModel(teacher, output, { setting: "--teacher" });
  const queue = new TrainingQueue(server, {
    adapter,
    settings: { ...settings, data },
    model,
    modelDigest: await modelDigest(found.directory),
    ...(taught && {
      teacher: {
        model: pinned(teacher!, taught),
        digest: await modelDigest(taught.directory),
      },
    }),
    dataFingerprint: dataset.fingerprint,
    output,
    signal,
  });
  await queue.open();
  output.info(
    `training ${queue.id} on ${server.shown}: ${settings.accumulate} micro-batches a step, computed by workers`,
  );
  return queue;
}

/** Throws UsageError if a queue is given and there is nothing that workers could share. */
function checkQueue(queue: string | undefined, settings: TrainSettings): void {
  if (queue === undefined) return;
  parseAddress(queue);
  const { accumulate } = settings;
  for (const key of ["task", "chatTemplate", "also", "shuffleBuffer"] as const)
    if (settings[key] !== undefined)
      throw new UsageError(
        `--queue: workers read --data by themselves, and know nothing of --${nameOf(key)}; leave it out`,
      );
  if (settings.data === STANDARD_INPUT)
    throw new UsageError("--queue: workers read --data by themselves; give a file");
  if (accumulate < 2)
    throw new UsageError(
      `--queue: workers share the batches of a step, and --accumulate is ${accumulate}; give at least as many as there are workers`,
    );
}

/** Throws if --patience is given without held-out examples. */
export function checkPatience({ patience }: TrainSettings, held: boolean): void {
  if (patience === undefined || held) return;
  throw new UsageError(
    `--patience ${patience}: there are no held-out examples to measure; give some with --valid, or leave --patience out`,
  );
}

const DEFAULT_STEPS = 100;

export function stepsOf({ steps, epochs, batch, accumulate }: TrainSettings, examples: number): number {
  if (epochs === undefined) return steps ?? DEFAULT_STEPS;
  const whole = epochs * stepsPerEpoch(examples, batch, accumulate);
  return Math.max(1, Math.ceil(whole - 1e-9)); // 0.1 epochs of 30 steps are 3.0000000000000004
}

function announceResume({ folder, output }: Context, steps: number): void {
  for (const note of folder.notes) output.info(`${paint("yellow", "note:")} ${note}`);
  output.info(
    folder.last === null
      ? `there is no checkpoint in ${folder.directory} yet: starting at the beginning`
      : `going on after step ${folder.last.step} of ${steps}`,
  );
}

async function announceSaved({ folder, output }: Context): Promise<void> {
  const { directory } = folder;
  const last = folder.replaces ? null : await lastState(directory).catch(() => null);
  if (last !== null && !last.finished)
    output.info(
      `step ${last.step} is saved; when there is space, go on with: tiedlora train --resume --out ${shellWord(directory)}`,
    );
}

async function showSample(
  output: Output,
  when: "before" | "after",
  { model, tokenizer, data: { dataset } }: Prepared,
  { separator }: TrainSettings,
): Promise<void> {
  const { prompt, completion } = await sampleOf(model, tokenizer, dataset.sample, separator);
  output.info(`${paint("dim", `${when} training:`)} ${prompt}${paint("cyan", completion)}`);
}

function conclude(output: Output, settings: TrainSettings, { ended, steps, saved, best }: RunResult): void {
  const { out, model } = settings;
  if (ended === "early")
    output.info(
      `stopped early at step ${steps}: no lower validation loss in ${settings.patience} evaluations`,
    );
  if (saved === null) {
    output.info(
      `interrupted after step ${steps}, before the first checkpoint: ${out} still has its earlier content`,
    );
    return;
  }
  if (best !== null)
    output.info(`the best step is ${saved}, with a validation loss of ${best.loss.toFixed(4)}`);
  output.info(`adapter saved in ${out}`);
  if (ended === "interrupted") {
    output.info(
      `interrupted after step ${steps}; go on with: tiedlora train --resume --out ${shellWord(out)}`,
    );
  } else {
    const words = ["--model", model, "--adapter", out].map(shellWord).join(" ");
    output.info(paint("dim", `try it: tiedlora generate ${words} --prompt "..."`));
  }
}
