/** Reads the files of data sets: whole JSON documents, parallel lines, and fields whose types are checked. */
import { describeValue } from "@tiedlora/core";
import { DataError } from "tiedlora";
import { type TextFile } from "tiedlora";
import { wholeText } from "tiedlora/internal";

export async function wholeJson(file: TextFile): Promise<unknown> {
  const text = await wholeText(file);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new DataError(file.name, null, `the file is not JSON: ${(cause as Error).message}`);
  }
}

/** The lines of a file, without line ends; an empty last line is left out. */
export async function allLines(file: TextFile): Promise<string[]> {
  const lines = (await wholeText(file)).split(/\r?\n/);
  if (lines.at(-1) === "") lines.pop();
  return lines;
}

/** Fields of an unknown value, each checked as it is read; errors name file, line and field. */
export class Fields {
  readonly #values: Readonly<Record<string, unknown>>;
  readonly #file: string;
  readonly #line: number | null;

  constructor(value: unknown, file: string, line: number | null = null) {
    this.#file = file;
    this.#line = line;
    if (typeof value !== "object" || value === null || Array.isArray(value))
      this.#fail(`found ${shown(value)}; expected an object`);
    this.#values = value as Record<string, unknown>;
  }

  has(name: string): boolean {
    return name in this.#values;
  }

  text(name: string): string {
    const value = this.#values[name];
    return typeof value === "string" ? value : this.#fail(`"${name}" is ${shown(value)}; expected text`);
  }

  whole(name: string): number {
    const value = Number(this.#values[name]);
    return Number.isInteger(value)
      ? value
      : this.#fail(`"${name}" is ${shown(this.#values[name])}; expected a whole number`);
  }

  list(name: string): unknown[] {
    const value = this.#values[name];
    return Array.isArray(value) ? value : this.#fail(`"${name}" is ${shown(value)}; expected a list`);
  }

  texts(name: string): string[] {
    return this.list(name).map((value) =>
      typeof value === "string" ? value : this.#fail(`"${name}" holds ${shown(value)}; expected text`),
    );
  }

  objects(name: string): Fields[] {
    return this.list(name).map((value) => new Fields(value, this.#file, this.#line));
  }

  #fail(message: string): never {
    throw new DataError(this.#file, this.#line, message);
  }
}

const shown = (value: unknown): string => (value === undefined ? "missing" : describeValue(value, 60));
