/** Typed, checked access to the fields of a config.json. Every error names the field, what it holds and what is needed. */
import { describeValue, FormatError, isRecord } from "@tiedlora/core";

const MAX_SIZE = 2 ** 31 - 1;

/** Numbers beyond these would round to 0 or to infinity on the way through a computation in f32. */
const SMALLEST = 1e-12;
const LARGEST = 1e12;
const isPositive = (value: unknown): value is number =>
  typeof value === "number" && value >= SMALLEST && value <= LARGEST;

/** Reads fields of one JSON object. A method given several names takes the first that is present and not null. */
export class Fields {
  readonly file: string;
  readonly raw: Readonly<Record<string, unknown>>;
  /** Put before names in messages, for objects inside of the config. */
  readonly prefix: string;

  constructor(file: string, raw: Readonly<Record<string, unknown>>, prefix = "") {
    this.file = file;
    this.raw = raw;
    this.prefix = prefix;
  }

  fail(name: string, expected: string, hint?: string): never {
    const found = describeValue(this.raw[name]);
    throw new FormatError({ file: this.file, tensor: this.prefix + name, found, expected, hint });
  }

  /** The name under which a value is present; undefined if there is none. */
  find(names: readonly string[]): string | undefined {
    return names.find((name) => this.raw[name] !== undefined && this.raw[name] !== null);
  }

  has(name: string): boolean {
    return this.find([name]) !== undefined;
  }

  /** A count or size: a whole number from `min` to `max`. */
  size(names: readonly string[], fallback?: number, min = 1, max: number = MAX_SIZE): number {
    return this.#read(
      names,
      fallback,
      `a whole number from ${min} to ${max}`,
      (value): value is number =>
        Number.isInteger(value) && (value as number) >= min && (value as number) <= max,
    );
  }

  /** A number above zero, of a size that f32 can compute with. */
  positive(names: readonly string[], fallback?: number): number {
    return this.#read(names, fallback, `a number above 0, from ${SMALLEST} to ${LARGEST}`, isPositive);
  }

  flag(name: string, fallback: boolean): boolean {
    return this.#read(
      [name],
      fallback,
      "true or false",
      (value): value is boolean => typeof value === "boolean",
    );
  }

  text(names: readonly string[], fallback?: string): string {
    return this.#read(names, fallback, "text", (value): value is string => typeof value === "string");
  }

  /** A list of `length` numbers, each as `positive` accepts it. */
  positives(name: string, length: number): number[] {
    const isPositives = (value: unknown): value is number[] =>
      Array.isArray(value) && value.length === length && value.every(isPositive);
    return this.#read([name], undefined, `a list of ${length} numbers above 0`, isPositives);
  }

  object(name: string): Fields {
    const value = this.raw[name];
    if (!isRecord(value)) this.fail(name, "an object");
    return new Fields(this.file, value, `${this.prefix}${name}.`);
  }

  /** The token ids of a field that holds one, a list, or none; -1 means none and is left out. */
  ids(name: string): number[] {
    const value = this.raw[name];
    if (value === undefined || value === null) return [];
    const list: unknown[] = Array.isArray(value) ? value : [value];
    if (!list.every((id) => Number.isInteger(id) && (id as number) >= -1 && (id as number) <= MAX_SIZE))
      this.fail(name, "a token id, or a list");
    return (list as number[]).filter((id) => id >= 0);
  }

  #read<T>(
    names: readonly string[],
    fallback: T | undefined,
    expected: string,
    accepts: (value: unknown) => value is T,
  ): T {
    const name = this.find(names);
    if (name === undefined) return fallback ?? this.fail(names[0]!, expected);
    const value = this.raw[name];
    return accepts(value) ? value : this.fail(name, expected);
  }
}
