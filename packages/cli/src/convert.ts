/** `tiedlora merge`, `export` and `import`: adapters into weights, and into the formats of other programs and back. */
import { resolve } from "node:path";
import type { Command } from "commander";
import type { Decoder } from "@tiedlora/models";
import type { Adapter } from "tiedlora";
import { ADAPTER_FORMATS, type AdapterFormat, untie } from "tiedlora";
import { saveAdapter, saveMerged } from "tiedlora/node";
import { checkTarget } from "tiedlora/internal/node";
import { withLock } from "./run/lock.ts";
import { checkOut } from "./checks.ts";
import { oneOf, path } from "./options.ts";
import type { Output } from "./output.ts";
import { describeQuantized } from "./quantized.ts";
import { UsageError } from "./settings.ts";
import { addModelFlags, withModelAlone, type ModelFlags, type OpenedModel } from "./with-model.ts";

const FORMATS = Object.keys(ADAPTER_FORMATS) as AdapterFormat[];

interface OutFlags extends ModelFlags {
  readonly out: string;
  readonly force?: true;
}

/** Adds --out, and --force to replace what is already there. */
function addOut(command: Command, what: string): Command {
  return command
    .requiredOption("--out <dir>", `where ${what} is written`, path)
    .option("--force", `replace ${what === "it" ? "an adapter" : "a model"} that is already there`);
}

export function addMerge(program: Command, output: Output): void {
  const command = addModelFlags(
    program.command("merge").description("write the model with the adapter merged into its weights"),
  );
  addOut(command, "the merged model")
    .addHelpText(
      "after",
      "\nThe result is a Hugging Face directory, with the model's tokenizer.\n" +
        "\nExample:\n  tiedlora merge --model ./llama --adapter ./adapter --out ./merged",
    )
    .option(
      "--untie",
      "give an embedding whose weight is the output embedding's one of its own, if the adapter changes one of them alone",
    )
    .action(async (flags: OutFlags & { readonly untie?: true }) => {
      if (flags.model !== undefined) checkOther(flags.out, flags.model, "the model's own directory");
      await withAdapter(
        flags,
        "model",
        output,
        async ({ model, adapter, directory, separator, trainedOn }) => {
          checkOther(flags.out, directory, "the model's own directory");
          if (flags.untie) untieAdapted(model, adapter);
          await saveMerged(model, flags.out, { copyFrom: directory });
          noteSeparator(output, separator);
          noteBase(output, model, directory, trainedOn);
        },
      );
      output.info(`merged model saved in ${flags.out}`);
    });
}

/** Gives adapted modules that share their weight with others weights of their own; the last of those that share one keeps it. */
function untieAdapted(model: Decoder, adapter: Adapter): void {
  for (const [host, { member }] of adapter.acting()) {
    const uses = [...model.namedParameters()].filter(([, one]) => one === host.weight).length;
    if (uses > 1) untie(model, member.path);
  }
}

export function addExport(program: Command, output: Output): void {
  const command = addModelFlags(
    program.command("export").description("write an adapter in another program's format"),
  );
  addOut(command.requiredOption("--format <name>", FORMATS.join(", "), oneOf(FORMATS)), "it")
    .addHelpText(
      "after",
      "\nExample:\n  tiedlora export --model ./llama --adapter ./adapter --format peft-lora --out ./for-peft",
    )
    .action((flags: OutFlags & { readonly format: AdapterFormat }) => convert(flags, flags.format, output));
}

export function addImport(program: Command, output: Output): void {
  const command = addModelFlags(
    program.command("import").description("read an adapter of peft or mlx-lm, and write it as ours"),
  );
  addOut(command, "it")
    .addHelpText(
      "after",
      "\nOther commands read such adapters as they are, and train --init-from trains on from them.\n" +
        "\nExample:\n  tiedlora import --model ./llama --adapter ./from-peft --out ./adapter",
    )
    .action((flags: OutFlags) => convert(flags, "native", output));
}

async function convert(flags: OutFlags, format: AdapterFormat, output: Output): Promise<void> {
  if (flags.adapter !== undefined) checkOther(flags.out, flags.adapter, "the adapter's own directory");
  await withAdapter(flags, "adapter", output, async ({ adapter, base, separator, trainedOn }) => {
    await saveAdapter(adapter, flags.out, provenanceOf({ base, separator, trainedOn }), format);
    if (format === "mlx") noteSeparator(output, separator);
    if (format !== "native" && trainedOn !== undefined)
      output.info(
        `note: the adapter was trained on weights quantized to ${trainedOn}, of which ${format} has no record: load the base model quantized there, too`,
      );
  });
  output.info(`adapter saved in ${flags.out} (${format})`);
}

/** What the files of an adapter say of its base model and its training. */
export function provenanceOf({
  base,
  separator,
  trainedOn,
}: Pick<OpenedModel, "base" | "separator" | "trainedOn">): Readonly<Record<string, string>> {
  return {
    ...base,
    ...(separator !== undefined && { separator }),
    ...(trainedOn !== undefined && { quantize: trainedOn }),
  };
}

/** Says into which weights the adapter is merged, where quantization leaves a doubt. */
function noteBase(output: Output, model: Decoder, directory: string, trainedOn: string | undefined): void {
  if (describeQuantized(model) !== null)
    output.info(
      `note: the weights of ${directory} are quantized: the adapter is merged into their dequantized values, written as ${model.config.dtype}`,
    );
  else if (trainedOn !== undefined)
    output.info(
      `note: the adapter was trained on weights quantized to ${trainedOn}: it is merged into the unquantized weights of ${directory}`,
    );
}

/** Prints a note on the separator, for which the written files have no place. */
export function noteSeparator(output: Output, separator: string | undefined): void {
  if (separator !== undefined)
    output.info(
      `note: the adapter was trained with ${JSON.stringify(separator)} after every prompt: end prompts with it`,
    );
}

/** As withModelAlone, with a lock on --out; throws UsageError without --adapter. `kind` is the kind of output. */
async function withAdapter(
  flags: OutFlags,
  kind: "adapter" | "model",
  output: Output,
  work: (opened: OpenedModel & { readonly adapter: Adapter }) => Promise<void>,
): Promise<void> {
  if (flags.adapter === undefined) throw new UsageError("--adapter is missing: give the adapter's directory");
  await checkOut(flags.out);
  await withLock(flags.out, async () => {
    await checkTarget(flags.out, kind, flags.force === true);
    await withModelAlone(flags, output, (opened) => work({ ...opened, adapter: opened.adapter! }));
  });
}

/** Throws UsageError if --out is a directory that is read, and would be overwritten. */
export function checkOther(out: string, source: string, what: string): void {
  if (resolve(out) === resolve(source))
    throw new UsageError(`--out ${out}: that is ${what}; give another directory`);
}
