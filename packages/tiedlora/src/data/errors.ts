import { FileError } from "@tiedlora/core";

/** Errors of data files: where, what was found, what to do. */
export class DataError extends FileError {
  /** 1 is the first line; null: the file as a whole. */
  readonly line: number | null;

  constructor(file: string, line: number | null, message: string) {
    const place = line === null ? null : `line ${line}`;
    super(file, place, place === null ? `${file}: ${message}` : `${file}, ${place}: ${message}`);
    this.name = "DataError";
    this.line = line;
  }
}
