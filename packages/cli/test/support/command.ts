/** Runs the command line within the test, or as a process of its own. */
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { commandProgram, typescriptProgram } from "../../../../test/support/programs.ts";
import { main } from "../../src/main.ts";
import type { Output } from "../../src/output.ts";

process.env["HF_HUB_OFFLINE"] = "1"; // nothing in tests leaves the machine

export interface Result {
  readonly code: number;
  /** Results: stdout. */
  readonly out: string;
  /** Messages for people: stderr. */
  readonly info: string;
}

/** Runs it in this process. */
export async function tiedlora(...argv: string[]): Promise<Result> {
  const [out, info]: [string[], string[]] = [[], []];
  const output: Output = {
    interactive: false,
    out: (line) => void out.push(`${line}\n`),
    write: (text) => void out.push(text),
    info: (line) => void info.push(line),
  };
  const code = await main(argv, output);
  return { code, out: out.join("").trimEnd(), info: info.join("\n") };
}

/** The arguments of Node that run a script of this folder; "tiedlora.ts" is the command. */
export const scriptArguments = (script: string): string[] =>
  script === "tiedlora.ts" ? commandProgram() : typescriptProgram(join(import.meta.dirname, script));

/** Starts it as a process. */
export function start(...argv: string[]): ChildProcess {
  return startScript("tiedlora.ts", ...argv);
}

/** Starts a script of this folder as a process. */
export function startScript(script: string, ...argv: string[]): ChildProcess {
  return startWith({}, script, ...argv);
}

/** As `startScript`, with variables of its own. */
export function startWith(env: Record<string, string>, script: string, ...argv: string[]): ChildProcess {
  return spawn(process.execPath, [...scriptArguments(script), ...argv], {
    env: { ...process.env, ...env },
    stdio: [script === "racer.ts" ? "pipe" : "ignore", "pipe", "pipe"],
    cwd: join(import.meta.dirname, "../../../.."),
  });
}

/** Waits for a process; with what it has written. */
export async function ended(
  child: ChildProcess,
): Promise<Result & { readonly signal: NodeJS.Signals | null }> {
  let [out, info] = ["", ""];
  child.stdout!.on("data", (data: Buffer) => (out += data.toString()));
  child.stderr!.on("data", (data: Buffer) => (info += data.toString()));
  const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
    child.on("error", reject).on("close", (...result) => resolve(result));
  });
  return { code: code ?? -1, signal, out, info };
}
