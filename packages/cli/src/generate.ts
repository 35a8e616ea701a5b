/** `tiedlora generate`: continues a prompt by a model, with an adapter or without. */
import type { Command } from "commander";
import { type Decoder, streamText, type Prompt, type TextOptions, type Tokenizer } from "@tiedlora/models";
import { checkAnswers, generateFile } from "./generate-file.ts";
import { checkPath } from "./load.ts";
import { number, path, whole } from "./options.ts";
import { wholeText } from "tiedlora/internal";
import { paint, type Output } from "./output.ts";
import { chatTokens, givenPrompt } from "./sample.ts";
import { nameOf, UsageError } from "./settings.ts";
import { addModelFlags, addQuantize, withModel, type ModelFlags } from "./with-model.ts";

export interface SamplingFlags {
  readonly maxTokens: number;
  readonly temperature: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly repetitionPenalty?: number;
  readonly stop?: string[];
  readonly seed: number;
}

interface GenerateFlags extends ModelFlags, SamplingFlags {
  readonly prompt?: string;
  readonly prompts?: string;
  readonly promptColumn?: string;
  readonly out?: string;
  readonly batch: number;
  readonly resume?: true;
  readonly force?: true;
  readonly separator?: string;
  readonly chat?: true;
  readonly json?: true;
}

/** Adds the flags that determine how tokens are chosen. */
export function addSamplingFlags(command: Command): Command {
  return command
    .option("--max-tokens <n>", "the most tokens to generate", whole(1), 128)
    .option("--temperature <x>", "0 takes the most likely token, 1 samples", number({ min: 0 }), 0)
    .option("--top-k <n>", "sample from the n most likely tokens", whole(1))
    .option(
      "--top-p <x>",
      "sample from the tokens that make up this probability",
      number({ above: 0, below: 1 }),
    )
    .option(
      "--repetition-penalty <x>",
      "above 1 makes tokens that have occurred less likely",
      number({ above: 0 }),
    )
    .option("--stop <text...>", "texts that end the answer")
    .option("--seed <n>", "the seed of sampling", whole(0), 0);
}

/** Throws UsageError for flags of sampling without any. */
export function checkSampling({ temperature, topK, topP }: SamplingFlags): void {
  const given = topK !== undefined ? `--top-k ${topK}` : topP !== undefined ? `--top-p ${topP}` : null;
  if (temperature === 0 && given !== null)
    throw new UsageError(`${given} has no effect at --temperature 0, which takes the most likely token; give a temperature above 0`); // prettier-ignore
}

/** The flags as options of @tiedlora/models. */
export function samplingOf(flags: SamplingFlags): TextOptions {
  const { maxTokens, temperature, seed, topK, topP, repetitionPenalty, stop } = flags;
  return {
    maxTokens,
    temperature,
    seed,
    ...(topK !== undefined && { topK }),
    ...(topP !== undefined && { topP }),
    ...(repetitionPenalty !== undefined && { repetitionPenalty }),
    ...(stop !== undefined && { stop }),
  };
}

export function addGenerate(program: Command, output: Output): void {
  const command = program.command("generate").description("continue a prompt, with or without an adapter");
  addSamplingFlags(addQuantize(addModelFlags(command)))
    .option("--prompt <text>", "what to continue (default: standard input)")
    .option(
      "--separator <text>",
      "text after the prompt (default: the one that the adapter was trained with)",
    )
    .option("--chat", "ask the prompt as a question to an assistant, by the chat template")
    .option("--json", "print one JSON object")
    .option("--prompts <file>", "continue all prompts of a file: JSON lines, or a prompt a line (.txt)", path)
    .option(
      "--prompt-column <name>",
      "the field of --prompts that holds the prompt (default: prompt, instruction or text)",
    )
    .option("--out <file>", "where the answers to --prompts are written, as JSON lines", path)
    .option("--batch <n>", "the prompts of --prompts that are continued together", whole(1), 16)
    .option("--resume", "go on with an --out that was not finished")
    .option("--force", "replace an --out that is already there")
    .addHelpText(
      "after",
      `\nExamples:\n  tiedlora generate --model ./llama --adapter ./adapter --prompt "Once upon" --temperature 0.8\n` +
        "  tiedlora generate --model ./llama --adapter ./adapter --prompts questions.jsonl --out answers.jsonl",
    )
    .action(async (flags: GenerateFlags) => {
      checkSampling(flags);
      if (flags.chat && flags.separator !== undefined)
        throw new UsageError("--separator is given with --chat, whose template says what follows a question; give one of them"); // prettier-ignore
      if (flags.prompts !== undefined) return onFile(flags, flags.prompts, output);
      const alone = (["out", "resume", "force", "promptColumn"] as const).find(
        (name) => flags[name] !== undefined,
      );
      if (alone !== undefined)
        throw new UsageError(`--${nameOf(alone)} belongs to --prompts, which is missing`);
      const prompt = flags.prompt ?? (await promptFromInput());
      await withModel(flags, output, async ({ model, tokenizer, separator }) => {
        if (flags.chat) checkChat(tokenizer);
        const given = flags.chat
          ? chatTokens(tokenizer, [{ role: "user", content: prompt }])
          : givenPrompt(tokenizer, prompt, flags.separator ?? separator);
        notePositions(output, model, tokenizer, given, flags.maxTokens);
        let completion = "";
        for await (const piece of streamText(model, tokenizer, given, samplingOf(flags))) {
          completion += piece;
          if (!flags.json) output.write(piece);
        }
        output.out(flags.json ? JSON.stringify({ prompt, completion }) : "");
      });
    });
}

/** Throws UsageError for --chat with a model that was not trained on chats. */
function checkChat({ hasChatTemplate }: Tokenizer): void {
  if (!hasChatTemplate)
    throw new UsageError(
      "--chat: the model has no chat template, so it was not trained on chats; leave it out",
    );
}

async function onFile(flags: GenerateFlags, prompts: string, output: Output): Promise<void> {
  if (flags.prompt !== undefined) throw new UsageError("--prompt and --prompts: give one of them");
  if (flags.out === undefined)
    throw new UsageError("--out is missing: give a file for the answers to --prompts");
  const file = { ...flags, prompts, out: flags.out };
  await checkPath("--prompts", prompts, "file or directory", "expected a file of prompts");
  await checkAnswers(file);
  await withModel(flags, output, (opened) => {
    if (flags.chat) checkChat(opened.tokenizer);
    return generateFile(opened, file, samplingOf(flags), output);
  });
}

/** Prints a note if text may exceed the positions that the model was trained for; rotary models generate text there too. */
function notePositions(
  output: Output,
  { config }: Decoder,
  tokenizer: Tokenizer,
  prompt: Prompt,
  maxTokens: number,
): void {
  const tokens = (typeof prompt === "string" ? tokenizer.encode(prompt) : prompt).length;
  if (config.rope === null || tokens + maxTokens <= config.maxPositions) return; // beyond learned positions, generation throws
  output.info(
    `${paint("yellow", "note:")} a prompt of ${tokens} tokens and up to ${maxTokens} new ones go past the ${config.maxPositions} ` +
      `positions that the model was trained for, where it answers worse; lower --max-tokens or shorten the prompt`,
  );
}

async function promptFromInput(): Promise<string> {
  if (process.stdin.isTTY)
    throw new UsageError("--prompt is missing: give it, or write the prompt to the standard input");
  const input = { name: "the standard input", pieces: () => process.stdin as AsyncIterable<Uint8Array> };
  return (await wholeText(input)).replace(/\r?\n$/, "");
}
