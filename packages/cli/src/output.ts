/** Where the command line writes: results to stdout, everything for people to stderr unless it is the result. */
import { styleText } from "node:util";
import { EXIT } from "./exit.ts";
import { requestStop } from "./interrupt.ts";

/** Thrown by a command that Ctrl-C has ended, once it has printed everything. */
export class Interrupted extends Error {
  constructor() {
    super("interrupted");
    this.name = "Interrupted";
  }
}

/** Where a command writes: results to one stream, progress to the other. */
export interface Output {
  /** A line of results. */
  out(line: string): void;
  /** A piece of results, as it comes: without the end of a line. */
  write(text: string): void;
  /** A line about what is going on. */
  info(line: string): void;
  /** Whether there is a terminal, on which a line can move. */
  readonly interactive: boolean;
}

/** The process's own streams. Colours and moving lines only on a terminal. */
export function processOutput(): Output {
  const { stdout, stderr } = process;
  stdout.on("error", onBroken);
  stderr.on("error", () => undefined); // there is nowhere left to say it
  return {
    interactive: stderr.isTTY,
    out: (line) => void stdout.write(`${line}\n`),
    write: (text) => void stdout.write(text),
    info: (line) => void stderr.write(`${line}\n`),
  };
}

/** The results cannot be written any more: a failure, unless their reader has gone away. */
export class OutputError extends Error {
  constructor(cause: Error) {
    super(`the results cannot be written to the standard output: ${cause.message}`, { cause });
    this.name = "OutputError";
  }
}

let broken = false;

/**
 * Nobody reads the results any more, as in `| head`: that is a request to stop, as Ctrl-C is. A full disk is a failure. Work
 * that is going on ends in good order first.
 */
function onBroken(cause: NodeJS.ErrnoException): void {
  if (broken) return; // each line that was on its way says the same
  broken = true;
  const failure = cause.code === "EPIPE" ? null : new OutputError(cause);
  if (requestStop(failure)) {
    if (failure === null) process.stderr.write("nobody reads the standard output any more: stopping\n");
    return;
  }
  if (failure !== null) process.stderr.write(`${paint("red", "error:")} ${failure.message}\n`);
  process.exit(failure === null ? EXIT.interrupted : EXIT.failed);
}

/** A word as a shell takes it: quoted where it has to be. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

type Style = "bold" | "dim" | "red" | "green" | "yellow" | "cyan";

/** Colours text for a terminal that shows colours. */
export function paint(style: Style, text: string): string {
  return process.stderr.isTTY && process.env["NO_COLOR"] === undefined ? styleText(style, text) : text;
}

/** Seconds as people say them: "42s", "3m 05s", "2h 10m". */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const pad = (n: number): string => String(n).padStart(2, "0");
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${pad(whole % 60)}s`;
  return `${Math.floor(whole / 3600)}h ${pad(Math.floor((whole % 3600) / 60))}m`;
}
