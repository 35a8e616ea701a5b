/** `tiedlora init` writes a file of settings with comments; `tiedlora validate` checks whether one would work. */
import { access } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import type { Command } from "commander";
import { writeFileAtomic } from "@tiedlora/core/node";
import { type DecoderConfig, adaptableSpecs, parameterSpecs } from "@tiedlora/models";
import { loadConfig, loadTokenizer } from "@tiedlora/models/node";
import { describeTies } from "tiedlora/internal";
import { writing } from "tiedlora/internal/node";
import { countParameters, planAdapter } from "tiedlora";
import { rankProblem } from "./checks.ts";
import { findModel } from "./find-model.ts";
import { chatTemplate } from "./chat-templates.ts";
import { checkLength, checkSeparator } from "./load.ts";
import { checkLoss } from "./loss-settings.ts";
import { checkOptimizer } from "./optimizer.ts";
import { paint, shellWord, type Output } from "./output.ts";
import { runSettings } from "./run-file.ts";
import { addSettings, asUsage, entries, UsageError } from "./settings.ts";
import { checkInitFrom } from "./start-adapter.ts";
import { checkPatience, stepsOf } from "./train.ts";
import { checkStart } from "./starts.ts";
import { checkMethod, methodOf } from "./method-settings.ts";
import { TRAIN_SETTINGS, type TrainSettings } from "./train-settings.ts";
import { checkData, findData, readData } from "./training-data.ts";
import { settingsYaml } from "./yaml.ts";

export function addInit(program: Command, output: Output): void {
  program
    .command("init")
    .description("write a YAML file of all settings of train, with comments")
    .argument("[file]", "the name of the file", "run.yaml")
    .option("--force", "replace the file if it exists")
    .addHelpText("after", "\nExample:\n  tiedlora init run.yaml\n  tiedlora train --config run.yaml")
    .action(async (file: string, { force }: { readonly force?: true }) => {
      const exists = await access(file).then(() => true, () => false); // prettier-ignore
      if (exists && !force)
        throw new UsageError(`${file} exists; give another name, or replace it by --force`);
      await writing(dirname(resolve(file)), () => writeFileAtomic(file, initialYaml()));
      output.info(
        `${file} written: fill in model, data and out, and check it with "tiedlora validate ${shellWord(file)}"`,
      );
    });
}

/** The default settings, and example values for settings that have no default. */
function initialYaml(): string {
  const defaults = entries(TRAIN_SETTINGS).map(([key, { fallback }]) => [key, fallback] as const);
  const values = {
    ...Object.fromEntries(defaults),
    model: "./my-model",
    data: "./train.jsonl",
    out: "./adapter",
  } as Partial<TrainSettings>;
  return `# Settings of: tiedlora train --config FILE. Flags override them.\n\n${settingsYaml(TRAIN_SETTINGS, values)}`;
}

export function addValidate(program: Command, output: Output): void {
  const command = program
    .command("validate")
    .description("check settings, model and data without training")
    .argument("[file]", "a YAML file of settings");
  addSettings(command, TRAIN_SETTINGS)
    .addHelpText("after", "\nExample:\n  tiedlora validate run.yaml")
    .action(async (file: string | undefined, flags: Record<string, unknown>) => {
      const config = file ?? (flags["config"] as string | undefined);
      const { settings } = await runSettings({ ...flags, ...(config !== undefined && { config }) });
      await validate(settings, output);
    });
}

async function validate(settings: TrainSettings, output: Output): Promise<void> {
  const { directory } = await findModel(settings.model, output, { part: "config" });
  checkLoss(settings);
  checkOptimizer(settings);
  checkMethod(settings);
  checkStart(settings);
  await checkData(settings);
  await checkLength(directory, settings.seq);
  await checkInitFrom(settings);
  const config = await loadConfig(directory);
  const adapter = settings.initFrom === undefined ? methodText(config, settings, output) : `the adapter in ${settings.initFrom}`; // prettier-ignore
  const tokenizer = await loadTokenizer(
    (await findModel(settings.model, output, { part: "tokenizer" })).directory,
  );
  const sources = await findData(settings);
  checkPatience(settings, sources.held);
  const template =
    settings.chatTemplate === undefined ? undefined : await chatTemplate(settings.chatTemplate);
  const { examples, dataset } = await readData(sources, settings, template === undefined ? tokenizer : tokenizer.withChatTemplate(template), config, output, 0); // prettier-ignore
  checkSeparator(settings, dataset, settings.data);
  const steps = stepsOf(settings, examples.length);
  output.info(
    `${paint("green", "valid:")} ${adapter}, ` +
      `${steps} steps of ${settings.batch * settings.accumulate} ${settings.pack ? "packed sequences" : "examples"}` +
      (settings.initFrom === undefined ? ` at a learning rate of ${settings.lr}` : ""),
  );
}

/** "tl6 rank 8, 4,848 trainable parameters in 4 modules" */
function methodText(config: DecoderConfig, settings: TrainSettings, output: Output): string {
  const [linears, parameters] = [adaptableSpecs(config), parameterSpecs(config)];
  const method = methodOf(settings);
  const problem = rankProblem(linears, method);
  if (problem !== null) output.info(`${paint("yellow", "note:")} ${problem}`);
  const { trainable } = asUsage(() => countParameters(linears, method, parameters));
  const plan = planAdapter(linears, method, parameters);
  const size = `${trainable.toLocaleString("en-US")} trainable parameters in ${plan.sites.length} modules`;
  return `${method.name} rank ${method.rank}, ${size}${describeTies(plan)}`;
}
