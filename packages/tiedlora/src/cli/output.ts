/** Where the command line writes: results to stdout, everything for people to stderr unless it is the result. */
import { styleText } from "node:util";

export interface Output {
  /** A line of results. */
  out(line: string): void;
  /** A line about what is going on. */
  info(line: string): void;
  /** Replaces the last line on a terminal; on anything else, prints nothing. */
  status(line: string): void;
  /** Whether `status` shows. */
  readonly interactive: boolean;
}

/** The process's own streams. Colours and moving lines only on a terminal. */
export function processOutput(): Output {
  const { stdout, stderr } = process;
  let open = false; // whether a status line is on the screen
  const clear = (): void => {
    if (open) stderr.write("\r\x1b[K");
    open = false;
  };
  return {
    interactive: stderr.isTTY,
    out: (line) => {
      clear();
      stdout.write(`${line}\n`);
    },
    info: (line) => {
      clear();
      stderr.write(`${line}\n`);
    },
    status: (line) => {
      if (!stderr.isTTY) return;
      stderr.write(`\r\x1b[K${line.slice(0, (stderr.columns || 80) - 1)}`);
      open = true;
    },
  };
}

type Style = "bold" | "dim" | "red" | "green" | "cyan";

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
