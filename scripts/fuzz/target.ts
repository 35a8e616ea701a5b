/** What is fuzzed: files that are valid, and the reader that has to take them, or name what is wrong. */
import type { Random } from "./random.ts";

/** Files of one case, by their names. */
export type CaseFiles = Map<string, Uint8Array>;

/** A reader under test. It is prepared once in a process and then reads many cases. */
export interface Target {
  /** Valid files, of as many kinds as there are. */
  seed(random: Random): CaseFiles | Promise<CaseFiles>;
  /**
   * Reads the files, which are in `directory` too. Whatever it throws is judged; what it accepts it has to check, by
   * `sound`.
   */
  read(files: CaseFiles, directory: string): Promise<void>;
  /** Whether files are read from the directory; else they are only in memory. Default: false. */
  readonly onDisk?: boolean;
  /** Text that has a meaning in these files, and is put where other text was. */
  readonly words?: readonly string[];
}

/** Makes a target ready; `seed` and `read` then share what is expensive. */
export type TargetSource = () => Target | Promise<Target>;

/** What was accepted is not what it should be: worse than any error. */
export class Unsound extends Error {
  constructor(message: string) {
    super(message);
    this.name = "Unsound";
  }
}

/** Throws unless what was accepted holds. */
export function sound(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Unsound(what);
}

export function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
