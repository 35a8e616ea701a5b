/**
 * Rows of delimited text, strictly by RFC 4180: quoted fields may hold the delimiter, line breaks and doubled quotes; any other
 * use of quotes is an error that names the line. Text arrives in pieces of any size.
 */
import { DataError } from "./errors.ts";

export interface Row {
  readonly fields: readonly string[];
  /** The line at which the row starts, from 1. */
  readonly line: number;
}

export interface DelimitedOptions {
  readonly delimiter: "," | "\t" | ";";
  /** Whether quotes delimit fields. In tab-separated files they are ordinary characters (IANA text/tab-separated-values). */
  readonly quotes: boolean;
}

type State = "start" | "plain" | "quoted" | "closed";

/** Yields the rows of a file that is read piece by piece. Skips blank lines. Throws DataError for a misplaced quote. */
export async function* delimitedRows(
  pieces: AsyncIterable<string>,
  file: string,
  options: DelimitedOptions,
): AsyncGenerator<Row> {
  const parser = new RowParser(file, options);
  for await (const piece of pieces) yield* parser.push(piece);
  yield* parser.end();
}

class RowParser {
  private readonly file: string;
  private readonly options: DelimitedOptions;
  private state: State = "start";
  private field = "";
  private fields: string[] = [];
  private line = 1;
  private rowLine = 1;
  private quoteLine = 1;
  private afterReturn = false;

  constructor(file: string, options: DelimitedOptions) {
    this.file = file;
    this.options = options;
  }

  *push(text: string): Generator<Row> {
    let i = 0;
    while (i < text.length) {
      const c = text[i]!;
      if (this.state === "plain" || this.state === "quoted") {
        const end = this.runEnd(text, i); // ordinary characters, most of a file, are copied at once
        if (end > i) {
          this.take(text.slice(i, end));
          i = end;
          continue;
        }
      }
      i++;
      if (this.state === "quoted") {
        this.state = "closed"; // unless the next character shows that this is the first of two quotes
        this.afterReturn = false;
      } else if (c === "\n" && this.afterReturn) {
        this.afterReturn = false; // the second half of \r\n
      } else if (c === "\n" || c === "\r") {
        this.afterReturn = c === "\r";
        yield* this.finishRow();
        this.line++;
        this.rowLine = this.line;
      } else {
        this.afterReturn = false;
        this.character(c);
      }
    }
  }

  *end(): Generator<Row> {
    if (this.state === "quoted")
      this.fail(
        this.quoteLine,
        'a quoted field is never closed; add the missing " or write quotes inside as ""',
      );
    yield* this.finishRow();
  }

  private runEnd(text: string, from: number): number {
    if (this.state === "quoted") {
      const quote = text.indexOf('"', from);
      return quote < 0 ? text.length : quote;
    }
    let end = from;
    while (end < text.length) {
      const c = text[end]!;
      if (c === this.options.delimiter || c === "\n" || c === "\r" || (c === '"' && this.options.quotes))
        break;
      end++;
    }
    return end;
  }

  private take(text: string): void {
    this.field += text;
    if (this.state === "quoted") {
      const begins = this.afterReturn && text.startsWith("\n") ? 1 : 0; // the second half of \r\n, cut between two pieces
      this.line += countLines(text) - begins;
    }
    this.afterReturn = this.state === "quoted" && text.endsWith("\r");
  }

  /** Handles a character other than a line end, outside of quotes or right after a closing quote. */
  private character(c: string): void {
    if (c === this.options.delimiter) {
      this.fields.push(this.field);
      this.field = "";
      this.state = "start";
    } else if (c === '"' && this.options.quotes) {
      if (this.state === "closed") {
        this.field += '"';
        this.state = "quoted";
      } else if (this.state === "start") {
        this.state = "quoted";
        this.quoteLine = this.line;
      } else {
        this.fail(
          this.line,
          'there is a quote in the middle of a field; quote the whole field and write quotes inside as ""',
        );
      }
    } else {
      if (this.state === "closed")
        this.fail(
          this.line,
          `found ${JSON.stringify(c)} after a closing quote; expected a delimiter or the end of the line`,
        );
      this.state = "plain";
      this.field += c;
    }
  }

  private *finishRow(): Generator<Row> {
    const blank = this.fields.length === 0 && this.field === "" && this.state === "start";
    if (!blank) yield { fields: [...this.fields, this.field], line: this.rowLine };
    this.fields = [];
    this.field = "";
    this.state = "start";
  }

  private fail(line: number, message: string): never {
    throw new DataError(this.file, line, message);
  }
}

/** The number of line ends in `text`: \n, \r and \r\n. */
function countLines(text: string): number {
  return text.match(/\r\n?|\n/g)?.length ?? 0;
}
