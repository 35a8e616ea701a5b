/** The output of the command line: results go to stdout, all other messages for people to stderr. */
import { styleText } from "node:util";
import { EXIT } from "./exit.ts";
import { requestStop } from "./interrupt.ts";

/** Thrown by a command that Ctrl-C has ended, after it has printed everything. */
export class Interrupted extends Error {
  constructor() {
    super("interrupted");
    this.name = "Interrupted";
  }
}

/** The streams of a command: one for results, the other for progress. */
export interface Output {
  /** Writes a line of results. */
  out(line: string): void;
  /** Writes a piece of a result, without a line end. */
  write(text: string): void;
  /** Writes a line about progress. */
  info(line: string): void;
  /** Whether the output is a terminal, on which a line can move. */
  readonly interactive: boolean;
}

/** The process's own streams. Colors and moving lines appear only on a terminal. */
export function processOutput(): Output {
  const { stdout, stderr } = process;
  stdout.on("error", onBroken);
  stderr.on("error", () => undefined); // there is nowhere left to report it
  return {
    interactive: stderr.isTTY,
    out: (line) => void stdout.write(`${line}\n`),
    write: (text) => void stdout.write(text),
    info: (line) => void stderr.write(`${line}\n`),
  };
}

/** The failure to write results, for any reason other than that their reader has gone. */
export class OutputError extends Error {
  constructor(cause: Error) {
    super(`the results cannot be written to the standard output: ${cause.message}`, { cause });
    this.name = "OutputError";
  }
}

let broken = false;

/**
 * Handles an error of stdout. If the reader has gone, as in `| head`, that is a request to stop, like Ctrl-C; any other error,
 * such as a full disk, is a failure. Running work ends in good order first.
 */
function onBroken(cause: NodeJS.ErrnoException): void {
  if (broken) return; // every pending line gives the same error
  broken = true;
  const failure = cause.code === "EPIPE" ? null : new OutputError(cause);
  if (requestStop(failure)) {
    if (failure === null) process.stderr.write("nobody reads the standard output any more: stopping\n");
    return;
  }
  if (failure !== null) process.stderr.write(`${paint("red", "error:")} ${failure.message}\n`);
  process.exit(failure === null ? EXIT.interrupted : EXIT.failed);
}

/** A word of a shell command, quoted if necessary. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

type Style = "bold" | "dim" | "red" | "green" | "yellow" | "cyan";

/** Colors text, unless stderr is not a terminal or NO_COLOR is set. */
export function paint(style: Style, text: string): string {
  return process.stderr.isTTY && process.env["NO_COLOR"] === undefined ? styleText(style, text) : text;
}

/** A duration in seconds as readable text: "42s", "3m 05s", "2h 10m". */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const pad = (n: number): string => String(n).padStart(2, "0");
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${pad(whole % 60)}s`;
  return `${Math.floor(whole / 3600)}h ${pad(Math.floor((whole % 3600) / 60))}m`;
}
