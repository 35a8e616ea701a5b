/** Errors of data files: where, what was found, what to do. */
export class DataError extends Error {
  readonly file: string;
  /** 1 is the first line; null: the file as a whole. */
  readonly line: number | null;

  constructor(file: string, line: number | null, message: string) {
    super(line === null ? `${file}: ${message}` : `${file}, line ${line}: ${message}`);
    this.name = "DataError";
    this.file = file;
    this.line = line;
  }
}
