/** Judges the outcome of a case: it may be accepted, or refused with an error that names the file. All else is a finding. */
import { FileError } from "@tiedlora/core";
import { Unsound } from "./target.ts";

/** The limit of processor time in milliseconds. On a busy machine, elapsed time would be misleading. */
export const MAX_MS = 2000;
export const MAX_BYTES = 256 * 2 ** 20;

export interface Verdict {
  readonly outcome: "accepted" | "named" | "finding";
  /** The error's message, or a description of the fault. */
  readonly message: string;
}

/** Matches JavaScript's own messages, which show that a check is missing, even inside an error that names the file. */
const RAW =
  /(?<!something that )is not a function|is not iterable|is not a constructor|cannot (read|set|convert|destructure|access)|undefined \(|invalid (array|string|typed array) length|call stack|out of memory|allocation failed|circular structure|unexpected end of array|\[object Object\]|BigInt|regular expression too large/i;

/** Judges the thrown value, or undefined if nothing was thrown; `isValid`: the case must be accepted. */
export function judge(thrown: unknown, isValid: boolean): Verdict {
  if (thrown === undefined) return { outcome: "accepted", message: "" };
  if (thrown instanceof Unsound) return { outcome: "finding", message: `accepted, but ${thrown.message}` };
  if (!(thrown instanceof Error))
    return { outcome: "finding", message: `${typeof thrown} was thrown, which is no error` };
  const text = `${thrown.name}: ${thrown.message.slice(0, 300)}`;
  if (!(thrown instanceof FileError)) return { outcome: "finding", message: `${text}\n${stack(thrown)}` };
  if (thrown.file === "") return { outcome: "finding", message: `${text} (names no file)` };
  if (isValid) return { outcome: "finding", message: `a valid file was refused: ${text}` };
  if (thrown.message.length > 2000)
    return { outcome: "finding", message: `a message of ${thrown.message.length} characters: ${text}` };
  const raw = RAW.exec(thrown.message.replaceAll(/"(?:[^"\\]|\\.)*"/g, '""'));
  if (raw !== null) return { outcome: "finding", message: `${text} ("${raw[0]}" is the engine's own)` };
  return { outcome: "named", message: text };
}

/** The first lines of the stack. */
function stack({ stack: text = "" }: Error): string {
  const lines = text.split("\n").filter((line) => line.startsWith("    at "));
  return lines.slice(0, 4).join("\n");
}
