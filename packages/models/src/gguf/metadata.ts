/** Typed, checked access to the metadata of a GGUF file. Every error names the key, what it holds and what is needed. */
import { describeValue, FormatError } from "@tiedlora/core";
import type { GgufFile, GgufValue } from "./reader.ts";

export class Metadata {
  readonly #file: string;
  readonly #values: ReadonlyMap<string, GgufValue>;
  /** The value of `general.architecture`, with which the keys of the architecture begin. */
  readonly architecture: string;

  constructor({ name, metadata }: Pick<GgufFile, "name" | "metadata">) {
    this.#file = name;
    this.#values = metadata;
    this.architecture = this.text("general.architecture");
  }

  fail(key: string, expected: string, hint?: string): never {
    const found = describeValue(this.#values.get(this.#full(key)));
    throw new FormatError({ file: this.#file, tensor: this.#full(key), found, expected, hint });
  }

  /** The key as it is in the file: one that starts with a point belongs to the architecture. */
  #full(key: string): string {
    return key.startsWith(".") ? this.architecture + key : key;
  }

  get(key: string): GgufValue | undefined {
    return this.#values.get(this.#full(key));
  }

  /** A number above 0. */
  positive(key: string, fallback?: number): number {
    const value = this.get(key) ?? fallback;
    return typeof value === "number" && value > 0 && Number.isFinite(value) ? value : this.fail(key, "a number above 0"); // prettier-ignore
  }

  /** A size: a whole number above 0. */
  size(key: string, fallback?: number): number {
    const value = this.get(key) ?? fallback;
    return typeof value === "number" && Number.isSafeInteger(value) && value > 0 ? value : this.fail(key, "a whole number above 0"); // prettier-ignore
  }

  text(key: string, fallback?: string): string {
    const value = this.get(key) ?? fallback;
    return typeof value === "string" ? value : this.fail(key, "text");
  }

  flag(key: string, fallback: boolean): boolean {
    const value = this.get(key) ?? fallback;
    return typeof value === "boolean" ? value : this.fail(key, "true or false");
  }

  /** A token id; null if there is none. */
  id(key: string): number | null {
    const value = this.get(key);
    if (value === undefined) return null;
    return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : this.fail(key, "a token id"); // prettier-ignore
  }

  texts(key: string): readonly string[] {
    const value = this.get(key);
    if (!Array.isArray(value) || !value.every((one) => typeof one === "string"))
      return this.fail(key, "a list of texts");
    return value;
  }

  /** A list of `length` numbers. */
  numbers(key: string, length: number): readonly number[] {
    const value = this.get(key);
    if (!Array.isArray(value) || value.length !== length || !value.every((one) => typeof one === "number"))
      return this.fail(key, `a list of ${length} numbers`);
    return value;
  }
}
