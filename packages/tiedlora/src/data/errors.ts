import { FileError } from "@tiedlora/core";

/** A message may quote a file's own names, which can be as long as the file. */
const LONGEST = 1000;

/** Errors of data files: where, what was found, what to do. */
export class DataError extends FileError {
  /** 1 is the first line; null: the file as a whole. */
  readonly line: number | null;

  constructor(file: string, line: number | null, given: string) {
    const message = given.length > LONGEST ? `${given.slice(0, LONGEST)} …` : given;
    const place = line === null ? null : `line ${line}`;
    super(file, place, place === null ? `${file}: ${message}` : `${file}, ${place}: ${message}`);
    this.name = "DataError";
    this.line = line;
  }
}
