/**
 * The parts that all file readers share: the error for a malformed file, a bounded JSON parser, and the interfaces through
 * which files are read. Nothing here accesses a file system, so that a web page can supply files too.
 */

import { type ByteStream, streamInto } from "./stream.ts";

/** What is wrong with a file, and where. */
export interface Fault {
  /** The file's name for messages. */
  readonly file: string;
  /** The tensor or field that is wrong, if the fault concerns one. */
  readonly tensor?: string | undefined;
  readonly found: string;
  readonly expected: string;
  /** What to do about it. */
  readonly hint?: string | undefined;
}

/**
 * The content of a file is invalid. File readers throw only this for invalid content, so that a program can tell
 * a bad file from its own mistakes.
 */
export class FileError extends Error {
  readonly file: string;
  /** The place in the file: a line, a key or a tensor; null for the file as a whole. */
  readonly place: string | null;

  constructor(file: string, place: string | null, message: string) {
    super(message);
    this.name = "FileError";
    this.file = file;
    this.place = place;
  }
}

/** A file holds something other than what its format requires. */
export class FormatError extends FileError {
  readonly tensor: string | undefined;
  readonly found: string;
  readonly expected: string;

  constructor(fault: Fault) {
    const where = fault.tensor === undefined ? fault.file : `${fault.file}: ${quote(fault.tensor)}`;
    const message = `${where}: found ${clip(fault.found, 500)}; expected ${clip(fault.expected, 500)}`;
    super(fault.file, fault.tensor ?? null, fault.hint ? `${message}. ${fault.hint}` : message);
    this.name = "FormatError";
    this.tensor = fault.tensor;
    this.found = fault.found;
    this.expected = fault.expected;
  }
}

/** A FormatError saying that `file` holds `found` where `expected` is required. */
export function wrong(
  file: string,
  found: string,
  expected: string,
  more: Pick<Fault, "tensor" | "hint"> = {},
): FormatError {
  return new FormatError({ file, found, expected, ...more });
}

/** A source of bytes that are read in pieces: an open file, a Blob or a buffer. */
export interface Source {
  /** The name used in messages. */
  readonly name: string;
  /** The size in bytes. */
  readonly size: number;
  /** Reads the `length` bytes at byte `offset`, fewer at the end of the source, into a buffer that the caller may keep. */
  read(offset: number, length: number): Promise<Uint8Array>;
  /**
   * Reads bytes from byte `offset` on into `target`, which may be shared memory, and returns how many were read: fewer than
   * `target` has only at the end of the source. Left out by sources that cannot do so without a copy.
   */
  readInto?(offset: number, target: Uint8Array): Promise<number>;
  /** A text that changes when the content does: on disk, of the size and the time of the last write. Left out if none is known. */
  stamp?(): Promise<string>;
  /** Closes the underlying file, if any; the source must not be read afterwards. */
  close?(): Promise<void>;
}

/** A directory whose files are opened by plain file names. */
export interface Files {
  /** The directory's name, used in messages. */
  readonly name: string;
  /** Opens a file; resolves to null if there is none of that name. */
  open(name: string): Promise<Source | null>;
}

/** The part of the web's `Blob` interface that is used here; a `File` picked on a web page has it. */
export interface BlobLike {
  /** The size in bytes. */
  readonly size: number;
  /** The bytes from `begin` up to, not including, `end`; `arrayBuffer()` reads them, and so does `stream()`, which pages have. */
  slice(
    begin: number,
    end: number,
  ): {
    /** The bytes themselves. */
    arrayBuffer(): Promise<ArrayBuffer>;
    /** The bytes as a stream. */
    stream?(): ByteStream;
  };
}

/** A source over bytes in memory; `name` is used in messages. */
export function bytesSource(bytes: Uint8Array, name = "buffer"): Source {
  return {
    name,
    size: bytes.byteLength,
    read: (offset, length) => Promise.resolve(bytes.slice(offset, offset + length)),
  };
}

/** A source over a `Blob` or `File` of a web page; only the bytes that are read are loaded. `name` is used in messages. */
export function blobSource(blob: BlobLike, name: string): Source {
  const guarded = async <T>(read: () => Promise<T>): Promise<T> => {
    try {
      return await read();
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw wrong(name, `a file that cannot be read (${why})`, "the file as it was when it was chosen", {
        hint: "It was changed or removed since: choose it again.",
      });
    }
  };
  const read: Source["read"] = (offset, length) =>
    guarded(async () => new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer()));
  return {
    name,
    size: blob.size,
    read,
    readInto: (offset, target) =>
      guarded(async () => {
        const part = blob.slice(offset, offset + target.byteLength);
        if (part.stream !== undefined) return streamInto(part.stream(), target);
        const bytes = new Uint8Array(await part.arrayBuffer());
        target.set(bytes);
        return bytes.byteLength;
      }),
  };
}

/** A directory of files held in memory or picked on a web page, given as a map from name to content. */
export function memoryFiles(
  files: ReadonlyMap<string, Uint8Array | string | BlobLike>,
  name = "files",
): Files {
  return {
    name,
    open: (file) => {
      const content = files.get(file);
      if (content === undefined) return Promise.resolve(null);
      if (typeof content === "string") return Promise.resolve(bytesSource(encodeUtf8(content), file));
      if (content instanceof Uint8Array) return Promise.resolve(bytesSource(content, file));
      return Promise.resolve(blobSource(content, file));
    },
  };
}

/** Reads exactly `length` bytes, or throws FormatError: a file may shrink while it is read. */
export async function readExactly(source: Source, offset: number, length: number): Promise<Uint8Array> {
  const bytes = await source.read(offset, length);
  if (bytes.byteLength !== length) throw cutShort(source, offset, bytes.byteLength, length);
  return bytes;
}

/** Reads exactly the bytes that fill `target`, or throws FormatError. */
export async function readExactlyInto(source: Source, offset: number, target: Uint8Array): Promise<void> {
  if (source.readInto === undefined) {
    target.set(await readExactly(source, offset, target.byteLength));
    return;
  }
  const bytes = await source.readInto(offset, target);
  if (bytes !== target.byteLength) throw cutShort(source, offset, bytes, target.byteLength);
}

function cutShort(source: Source, offset: number, found: number, expected: number): FormatError {
  return wrong(source.name, `${found} bytes at offset ${offset}`, `${expected} bytes`, {
    hint: "The file is cut short, or changed while it was read.",
  });
}

// The web's text codecs are in every engine that runs this, but not in ECMAScript's own type library.
declare const TextDecoder: new (
  label: string,
  options: { fatal: boolean; ignoreBOM: boolean },
) => { decode(bytes: Uint8Array): string };
declare const TextEncoder: new () => { encode(text: string): Uint8Array<ArrayBuffer> };

export function decodeUtf8(bytes: Uint8Array, file: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw wrong(file, "bytes that are not UTF-8", "UTF-8 text");
  }
}

export function encodeUtf8(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}

/** Text files (configs, indices) of more bytes than this are refused before they are read. */
const MAX_TEXT_BYTES = 256 * 2 ** 20;

/** Reads a text file; null if there is none of that name. Throws FormatError if it is not UTF-8 or is larger than 256 MiB. */
export async function readText(files: Files, name: string): Promise<string | null> {
  const source = await files.open(name);
  if (source === null) return null;
  try {
    if (source.size > MAX_TEXT_BYTES) {
      throw wrong(source.name, `${source.size} bytes of text`, `at most ${MAX_TEXT_BYTES} bytes`);
    }
    return decodeUtf8(await readExactly(source, 0, source.size), source.name);
  } finally {
    await source.close?.();
  }
}

/**
 * Parses JSON. Throws FormatError if the text is not JSON, is nested deeper than `maxDepth`, or has an object with a repeated key
 * (which JSON.parse would accept).
 */
export function parseJson(text: string, file: string, maxDepth = 64): unknown {
  scanJson(text, file, maxDepth);
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw wrong(file, (cause as Error).message, "JSON");
  }
}

/** Like `parseJson`, and throws FormatError unless the value is an object. */
export function parseJsonObject(text: string, file: string, maxDepth = 64): Record<string, unknown> {
  const value = parseJson(text, file, maxDepth);
  if (!isRecord(value)) throw wrong(file, describeValue(value), "a JSON object");
  return value;
}

/** Whether a value is an object, and neither null nor an array. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether `name` can only name a file in the directory itself: not "." or "..", no separator, colon or NUL, not too long. */
export function isPlainFileName(name: string): boolean {
  // The operating system would take "\0" for the end of the name; on Windows ":" marks a drive or a stream.
  return name !== "" && name !== "." && name !== ".." && name.length < 256 && !/[/\\:\0]/.test(name);
}

/** A value from a file as JSON, shortened to `length` characters for a message. */
export function describeValue(value: unknown, length: number = 80): string {
  return clip(textOf(value), length);
}

function textOf(value: unknown): string {
  if (value === undefined) return "nothing";
  try {
    return JSON.stringify(value);
  } catch {
    return "something that is nested too deeply to show"; // JSON.stringify overflowed the stack
  }
}

function quote(name: string): string {
  return JSON.stringify(clip(name, 200));
}

/** Shortens `text` to `length` characters, since content quoted in a message may be as long as the file. */
function clip(text: string, length: number): string {
  return text.length > length ? `${text.slice(0, length - 3)}...` : text;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/** Throws for nesting beyond `maxDepth` and for repeated keys. Invalid JSON may pass, since JSON.parse checks the text next. */
function scanJson(text: string, file: string, maxDepth: number): void {
  const open: (Set<string> | null)[] = []; // for each open object its keys so far; null for an array
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === QUOTE) {
      const start = i++;
      while (i < text.length && text.charCodeAt(i) !== QUOTE) i += text.charCodeAt(i) === BACKSLASH ? 2 : 1;
      const keys = open[open.length - 1];
      if (keys && followedByColon(text, i + 1)) addKey(keys, text.slice(start, i + 1), file);
    } else if (c === 0x7b || c === 0x5b) {
      if (open.length === maxDepth) {
        throw wrong(file, `JSON nested deeper than ${maxDepth}`, `at most ${maxDepth} levels`);
      }
      open.push(c === 0x7b ? new Set() : null);
    } else if (c === 0x7d || c === 0x5d) {
      open.pop();
    }
  }
}

function followedByColon(text: string, from: number): boolean {
  let i = from;
  while (i < text.length && text.charCodeAt(i) <= 0x20) i++;
  return text.charCodeAt(i) === 0x3a;
}

function addKey(keys: Set<string>, literal: string, file: string): void {
  let key = literal;
  if (literal.includes("\\")) {
    try {
      key = JSON.stringify(JSON.parse(literal)); // "\u0061" and "a" are one key
    } catch {
      return; // JSON.parse will reject the whole text and say where
    }
  }
  if (keys.has(key)) {
    throw wrong(file, `the key ${describeValue(key.slice(1, -1))} twice`, "every key once");
  }
  keys.add(key);
}
