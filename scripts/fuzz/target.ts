/** The targets of fuzzing: valid files, and the reader that must accept files or name the fault in them. */
import type { Random } from "./random.ts";

/** The files of one case, by name. */
export type CaseFiles = Map<string, Uint8Array>;

/** A reader under test. A process prepares it once, and it then reads many cases. */
export interface Target {
  /** Makes valid files; over many cases, of every kind that exists. */
  seed(random: Random): CaseFiles | Promise<CaseFiles>;
  /**
   * Reads the files, which are also in `directory` if `onDisk`. Any error is judged; if the files are accepted, it must check
   * the result with `sound`.
   */
  read(files: CaseFiles, directory: string): Promise<void>;
  /** Whether files are read from the directory. Default: false, they are only in memory. */
  readonly onDisk?: boolean;
  /** Words with a meaning in these files, which replace other text. */
  readonly words?: readonly string[];
}

/** Prepares a target, so that `seed` and `read` share expensive objects. */
export type TargetSource = () => Target | Promise<Target>;

/** An accepted file led to a wrong result, which is worse than any other error. */
export class Unsound extends Error {
  constructor(message: string) {
    super(message);
    this.name = "Unsound";
  }
}

/** Throws {@link Unsound} unless `holds`; `what` describes the fault. */
export function sound(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Unsound(what);
}

export function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
