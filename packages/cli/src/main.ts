/** The command line: parses arguments, runs a command, and turns errors into messages and exit codes. */
import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { DivergedError } from "tiedlora";
import { EXIT } from "./exit.ts";
import { Interrupted, paint, processOutput, type Output } from "./output.ts";
import { addDeviceOptions } from "./device.ts";
import { addDemo } from "./demo.ts";
import { addParams } from "./params.ts";
import { addPlayground } from "./playground.ts";
import { addReport } from "./report.ts";
import { UsageError } from "./settings.ts";
import { YamlError } from "@tiedlora/experiments";
import { refuseRepeated, withOurNames } from "./strict.ts";
import { addSweep } from "./sweep.ts";
import { addWorker } from "./worker.ts";
import { addTrain } from "./train.ts";
import { addChat } from "./chat.ts";
import { addInit, addValidate } from "./config-commands.ts";
import { addCombine } from "./combine.ts";
import { addExport, addImport, addMerge } from "./convert.ts";
import { addConvert } from "./convert-gguf.ts";
import { addDevices } from "./devices.ts";
import { addEval } from "./eval.ts";
import { addGenerate } from "./generate.ts";
import { addInspect } from "./inspect.ts";
import { addServe } from "./serve.ts";

/** Runs `argv` (without node and script) and returns the exit code. */
export async function main(argv: readonly string[], output: Output = processOutput()): Promise<number> {
  const program = createProgram(output);
  try {
    await program.parseAsync([...argv], { from: "user" });
    return EXIT.ok;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage; // commander has printed the message
    if (error instanceof Interrupted) return EXIT.interrupted;
    output.info(`${paint("red", "error:")} ${messageOf(error)}`);
    if (process.env["TIEDLORA_DEBUG"] !== undefined && error instanceof Error) output.info(error.stack ?? "");
    return exitCodeOf(error);
  }
}

export function createProgram(output: Output): Command {
  const program = new Command("tiedlora")
    .description("Tied-LoRA, LoRA and VeRA: fine-tunes language models by small adapters with tied weights")
    .exitOverride()
    .configureOutput({
      writeOut: (text) => output.out(text.trimEnd()),
      writeErr: (text) => output.info(text.trimEnd()),
    })
    .version(versionOf(), "--version", "print the version")
    .showSuggestionAfterError()
    .configureHelp({ sortSubcommands: true, showGlobalOptions: true })
    .addHelpText(
      "after",
      `\nExit codes: ${EXIT.ok} done, ${EXIT.failed} failed, ${EXIT.usage} wrong usage or settings, ${EXIT.diverged} the loss became NaN, ` +
        `${EXIT.interrupted} interrupted.`,
    );
  addDeviceOptions(program, output);
  addTrain(program, output);
  for (const add of COMMANDS) add(program, output);
  addParams(program, output);
  addPlayground(program, output);
  addDemo(program, output);
  addSweep(program, output);
  addWorker(program, output);
  addReport(program, output);
  refuseRepeated(program);
  for (const command of program.commands)
    command.configureOutput({ outputError: (text, write) => write(withOurNames(text, command)) });
  return program;
}

/** The version of this package. */
function versionOf(): string {
  const manifest: unknown = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
  return (manifest as { version: string }).version;
}

const COMMANDS = [
  addChat,
  addCombine,
  addConvert,
  addDevices,
  addEval,
  addExport,
  addGenerate,
  addImport,
  addInit,
  addInspect,
  addMerge,
  addServe,
  addValidate,
] as const;

function exitCodeOf(error: unknown): number {
  if (error instanceof UsageError || error instanceof YamlError) return EXIT.usage;
  return error instanceof DivergedError ? EXIT.diverged : EXIT.failed;
}

function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const code = (error as NodeJS.ErrnoException).code;
  const hint = code === undefined ? memoryHint(error) : SYSTEM_HINTS[code];
  return hint === undefined ? error.message : `${error.message}. ${hint}`;
}

/** The remedies for errors of the operating system, by code. */
const SYSTEM_HINTS: Readonly<Record<string, string>> = {
  ENOSPC: "The disk is full: free some space, or give another --out.",
  EDQUOT: "Your share of the disk is full: free some space, or give another --out.",
  EACCES: "There is no permission to do that: give another directory.",
  EPERM: "There is no permission to do that: give another directory.",
  EROFS: "The file system is read-only: give another directory.",
  ENOTDIR: "Part of the path is a file, not a directory.",
};

function memoryHint({ name, message }: Error): string | undefined {
  if (
    name !== "OutOfMemoryError" &&
    !/out of memory|one buffer of .* holds at most|allocation failed/i.test(message)
  )
    return undefined;
  return "To need less memory, give a smaller --batch (with more --accumulate), a smaller --seq, or --checkpointing.";
}
