/** What a case may come to: it is accepted, or refused by an error that names the file. All else is a finding. */
import { FileError } from "@tiedlora/core";
import { Unsound } from "./target.ts";

/** Of processor time: on a machine that is busy with other things, a clock says nothing. */
export const MAX_MS = 2000;
export const MAX_BYTES = 256 * 2 ** 20;

export interface Verdict {
  readonly outcome: "accepted" | "named" | "finding";
  /** The error's message, or what is wrong. */
  readonly message: string;
}

/** What JavaScript itself says where a check is missing, also when it is passed on inside of a named error. */
const RAW =
  /(?<!something that )is not a function|is not iterable|is not a constructor|cannot (read|set|convert|destructure|access)|undefined \(|invalid (array|string|typed array) length|call stack|out of memory|allocation failed|circular structure|unexpected end of array|\[object Object\]|BigInt|regular expression too large/i;

/** Judges what was thrown, or that nothing was. */
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

/** Where it was thrown, shortly. */
function stack({ stack: text = "" }: Error): string {
  const lines = text.split("\n").filter((line) => line.startsWith("    at "));
  return lines.slice(0, 4).join("\n");
}
