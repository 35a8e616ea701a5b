import { FileError } from "@tiedlora/core";

/** The largest number of characters of a message, which may quote names from a file that are as long as the file. */
const LONGEST = 1000;

/** An error in a data file. The message says where it is, what was found, and what to do. */
export class DataError extends FileError {
  /** The line, from 1; null: the file as a whole. */
  readonly line: number | null;

  constructor(file: string, line: number | null, given: string) {
    const message = given.length > LONGEST ? `${given.slice(0, LONGEST)} …` : given;
    const place = line === null ? null : `line ${line}`;
    super(file, place, place === null ? `${file}: ${message}` : `${file}, ${place}: ${message}`);
    this.name = "DataError";
    this.line = line;
  }
}
