/**
 * `tiedlora convert`: a GGUF file of llama.cpp becomes a Hugging Face directory, which all other commands read; an adapter becomes a
 * GGUF file.
 */
import { mkdir, readdir, stat } from "node:fs/promises";
import { resolve } from "node:path";
import type { Command } from "commander";
import { fileSource, writeFilesAtomic } from "@tiedlora/core/node";
import { convertGguf, countParameters, type StoredDType } from "@tiedlora/models";
import { writing } from "tiedlora/internal/node";
import { checkOut } from "./checks.ts";
import { convertAdapter } from "./convert-adapter.ts";
import { BACKEND_NAMES, type BackendName } from "./device.ts";
import { checkPath } from "./load.ts";
import { oneOf, path } from "./options.ts";
import { type Output, paint } from "./output.ts";
import { withLock } from "./run/lock.ts";
import { UsageError } from "./settings.ts";

const DTYPES: readonly StoredDType[] = ["f32", "f16", "bf16"];

export function addConvert(program: Command, output: Output): void {
  program
    .command("convert")
    .description(
      "convert a GGUF file of llama.cpp into a Hugging Face directory, or an adapter into a GGUF file",
    )
    .argument(
      "<from>",
      "a model in blocks of the types F32, F16, BF16, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K or Q8_0; or the directory of an adapter",
      path,
    )
    .argument(
      "<to>",
      "where the model's directory is written, which must not exist, or be empty; or the adapter's file, NAME.gguf",
      path,
    )
    .option(
      "--dtype <name>",
      `write all matrices in this precision: ${DTYPES.join(", ")} (default: Q6_K becomes f16, and the other quantized types stay quantized)`,
      oneOf(DTYPES),
    ) // prettier-ignore
    .option("--model <dir>", "of an adapter: its base model (default: the one that it was trained on)", path)
    .option("--backend <name>", "of an adapter: where to compute", oneOf(BACKEND_NAMES), "cpu")
    .option("--force", "replace an adapter's file that is already there")
    .addHelpText(
      "after",
      "\nConverted are the architectures llama (Mistral's too), qwen2, qwen3, qwen3moe, olmo2, olmoe, phi3, gemma2 and gemma3, with the tokenizer where its scheme is known.\n" +
        "Quantized weights keep their numbers, and are written as MLX writes them.\n" +
        "An adapter of any method whose update is a product of two factors becomes a file for llama.cpp's --lora.\n" +
        "\nExamples:\n  tiedlora convert model-Q4_K_M.gguf ./model\n  tiedlora convert ./adapter adapter.gguf --model ./model",
    )
    .action((from: string, to: string, flags: ConvertFlags) => convertEither(from, to, flags, output));
}

interface ConvertFlags {
  readonly dtype?: StoredDType;
  readonly model?: string;
  readonly backend: BackendName;
  readonly force?: true;
}

async function convertEither(from: string, to: string, flags: ConvertFlags, output: Output): Promise<void> {
  const isDirectory = (await stat(from).catch(() => null))?.isDirectory() ?? false;
  if (!isDirectory) return convert(from, to, flags, output);
  if (flags.dtype !== undefined) throw new UsageError("--dtype: an adapter is written in f32; leave it out");
  return convertAdapter(from, to, flags, output);
}

async function convert(
  file: string,
  directory: string,
  { dtype }: { readonly dtype?: StoredDType },
  output: Output,
): Promise<void> {
  await checkPath("convert", file, "file or directory", "expected a GGUF file");
  await checkOut(directory);
  const there = await readdir(resolve(directory)).catch((): string[] => []);
  if (there.length > 0)
    throw new UsageError(`convert: ${directory} exists and is not empty; give another directory`);
  const converted = await convertGguf(await fileSource(file), dtype === undefined ? {} : { dtype });
  try {
    await withLock(directory, async () => {
      await writing(directory, async () => {
        await mkdir(directory, { recursive: true });
        await writeFilesAtomic(directory, converted.files);
      });
    });
  } finally {
    await converted.close();
  }
  const { config, kinds, noTokenizer } = converted;
  const millions = (countParameters(config) / 1e6).toFixed(1);
  const matrices = [...kinds].map(([kind, count]) => `${count} in ${kind}`).join(", ");
  output.info(
    `${config.modelType} with ${millions} million parameters (matrices: ${matrices}) written to ${directory}`,
  );
  if (noTokenizer !== null)
    output.info(
      `${paint("yellow", "note:")} no tokenizer is written: ${noTokenizer}, which cannot be converted exactly. Copy tokenizer.json and tokenizer_config.json of the original model into ${directory}.`,
    );
}
