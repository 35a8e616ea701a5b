/** Reads data files of CSV, TSV, JSON lines, a JSON list or plain text as records: named fields with the line of their origin. */
import { DataError } from "./errors.ts";
import { delimitedRows } from "./csv.ts";
import { type TextFile, textOf, wholeText } from "./text.ts";

export interface DataRecord {
  readonly fields: Readonly<Record<string, unknown>>;
  /** The line at which the record starts, from 1. */
  readonly line: number;
}

export type DataFormat = "csv" | "tsv" | "jsonl" | "json" | "text";

const BY_EXTENSION: Readonly<Record<string, DataFormat>> = {
  csv: "csv",
  tsv: "tsv",
  jsonl: "jsonl",
  ndjson: "jsonl",
  json: "json",
  txt: "text",
};

/** Whether a file of this name can be read as data. */
export function isDataFile(name: string): boolean {
  const plain = withoutGz(name).toLowerCase();
  return Object.keys(BY_EXTENSION).some((extension) => plain.endsWith(`.${extension}`));
}

/** The name of a file without the .gz of one that is compressed. */
export function withoutGz(name: string): string {
  return name.replace(/\.gz$/i, "");
}

/** The format of a file, by the extension of its name before .gz. Throws DataError for an unknown extension. */
export function formatOf(name: string): DataFormat {
  const extension = /\.([^./\\]+)$/.exec(withoutGz(name))?.[1]?.toLowerCase() ?? "";
  const format = BY_EXTENSION[extension];
  if (format === undefined) {
    const known = Object.keys(BY_EXTENSION).map((one) => `.${one}`);
    throw new DataError(
      name,
      null,
      `this kind of data file is unknown; expected a name that ends in ${known.join(", ")}`,
    );
  }
  return format;
}

/**
 * Yields the records of a file, in order; from plain text, one record with the field `text` for each line that is not blank. Throws
 * DataError with the line of a fault.
 */
export function readRecords(
  file: TextFile,
  format: DataFormat = formatOf(file.name),
): AsyncGenerator<DataRecord> {
  switch (format) {
    case "csv":
      return tableRecords(file, ",", true);
    case "tsv":
      return tableRecords(file, "\t", false);
    case "jsonl":
      return jsonRecords(file);
    case "json":
      return jsonListRecords(file);
    case "text":
      return textRecords(file);
  }
}

async function* tableRecords(
  file: TextFile,
  delimiter: "," | "\t",
  quotes: boolean,
): AsyncGenerator<DataRecord> {
  let header: readonly string[] | null = null;
  for await (const { fields, line } of delimitedRows(textOf(file), file.name, { delimiter, quotes })) {
    if (header === null) {
      header = checkHeader(fields, file.name, line);
    } else if (fields.length !== header.length) {
      throw new DataError(
        file.name,
        line,
        `the row has ${fields.length} fields; expected ${header.length}, as in the header (${header.join(", ")})`,
      );
    } else {
      yield { fields: Object.fromEntries(header.map((name, i) => [name, fields[i]!])), line };
    }
  }
  if (header === null) throw new DataError(file.name, null, "the file is empty; expected a header and rows");
}

function checkHeader(fields: readonly string[], file: string, line: number): readonly string[] {
  const twice = fields.find((name, i) => fields.indexOf(name) !== i);
  if (twice !== undefined) throw new DataError(file, line, `the header names the column "${twice}" twice`);
  return fields;
}

async function* jsonRecords(file: TextFile): AsyncGenerator<DataRecord> {
  for await (const { text, line } of lines(file)) {
    if (text.trim() === "") continue;
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (cause) {
      throw new DataError(
        file.name,
        line,
        `the line is not JSON (${(cause as Error).message}); expected one object a line`,
      );
    }
    if (typeof value !== "object" || value === null || Array.isArray(value))
      throw new DataError(
        file.name,
        line,
        `${text.slice(0, 40)} is not a JSON object; expected one object a line`,
      );
    yield { fields: value as Record<string, unknown>, line };
  }
}

/** Yields the records of a file that is one list of objects, as Alpaca's is; the file is read at once. */
async function* jsonListRecords(file: TextFile): AsyncGenerator<DataRecord> {
  const text = await wholeText(file);
  const expected = "expected a list of objects, [{...}, ...]; one object a line goes into a .jsonl file";
  let items: unknown;
  try {
    items = JSON.parse(text);
  } catch (cause) {
    throw new DataError(file.name, null, `the file is not JSON (${(cause as Error).message}); ${expected}`);
  }
  if (!Array.isArray(items)) throw new DataError(file.name, null, `the file is not a list; ${expected}`);
  const lineOf = itemLines(text);
  for (const [i, item] of items.entries()) {
    if (typeof item !== "object" || item === null || Array.isArray(item))
      throw new DataError(file.name, lineOf[i]!, `item ${i + 1} is not an object; ${expected}`);
    yield { fields: item as Record<string, unknown>, line: lineOf[i]! };
  }
}

/** The lines at which the items of a list start; `text` is valid JSON. */
function itemLines(text: string): number[] {
  const starts: number[] = [];
  let [line, depth, atStart] = [1, 0, false];
  for (let i = 0; i < text.length; i++) {
    const c = text[i]!;
    if (c === "\n") line++;
    if (/\s/.test(c)) continue;
    if (depth === 1 && atStart && c !== "]") starts.push(line);
    atStart = depth === 1 && c === ",";
    if (c === '"') {
      i++;
      while (text[i] !== '"') i += text[i] === "\\" ? 2 : 1;
    } else if (c === "[" || c === "{") {
      atStart = ++depth === 1;
    } else if (c === "]" || c === "}") {
      depth--;
    }
  }
  return starts;
}

async function* textRecords(file: TextFile): AsyncGenerator<DataRecord> {
  for await (const { text, line } of lines(file)) {
    if (text.trim() !== "") yield { fields: { text }, line };
  }
}

/** Yields the lines of a file. A line may come in many pieces; each piece is searched once, however long the line is. */
async function* lines(file: TextFile): AsyncGenerator<{ text: string; line: number }> {
  let parts: string[] = [];
  let line = 0;
  const take = (last: string): { text: string; line: number } => {
    const text = [...parts, last].join("").replace(/\r$/, "");
    parts = [];
    return { text, line: ++line };
  };
  for await (const piece of textOf(file)) {
    let from = 0;
    for (let end = piece.indexOf("\n"); end >= 0; end = piece.indexOf("\n", from)) {
      yield take(piece.slice(from, end));
      from = end + 1;
    }
    if (from < piece.length) parts.push(piece.slice(from));
  }
  if (parts.length > 0) yield take("");
}
