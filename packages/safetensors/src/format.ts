/**
 * What all file readers share: the error that says what is wrong with a file, a bounded JSON parser, and the interfaces
 * through which files are read. Nothing here touches a file system, so that a page can hand over files of its own.
 */

export interface Fault {
  /** The file, as a person would name it. */
  readonly file: string;
  /** The tensor or field that is wrong, where there is one. */
  readonly tensor?: string | undefined;
  readonly found: string;
  readonly expected: string;
  /** What to do about it. */
  readonly hint?: string | undefined;
}

/**
 * What a file holds is wrong. Readers of files throw this and nothing else for what is in a file, so that a program can tell
 * a bad file from a mistake of its own.
 */
export class FileError extends Error {
  readonly file: string;
  /** Where in the file: a line, a key, a tensor; null: the file as a whole. */
  readonly place: string | null;

  constructor(file: string, place: string | null, message: string) {
    super(message);
    this.name = "FileError";
    this.file = file;
    this.place = place;
  }
}

/** A file is not what it should be. */
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

/** The error that `file` has, where something is expected, something else. */
export function wrong(
  file: string,
  found: string,
  expected: string,
  more: Pick<Fault, "tensor" | "hint"> = {},
): FormatError {
  return new FormatError({ file, found, expected, ...more });
}

/** Bytes that are read in pieces: an open file, a Blob, a buffer. */
export interface Source {
  /** For messages. */
  readonly name: string;
  /** In bytes. */
  readonly size: number;
  /** The `length` bytes at `offset`, in a buffer that the caller may keep. */
  read(offset: number, length: number): Promise<Uint8Array>;
  /** Lets go of what was opened; the source is not read after that. */
  close?(): Promise<void>;
}

/** A directory of files, seen through plain file names. */
export interface Files {
  /** For messages: the directory. */
  readonly name: string;
  /** Opens a file; null if there is none of that name. */
  open(name: string): Promise<Source | null>;
}

/** The part of the web's Blob that is read here; a `File` that a person picks in a page is one. */
export interface BlobLike {
  /** Bytes in all. */
  readonly size: number;
  /** The bytes from `begin` up to, not including, `end`, to be read by `arrayBuffer()`. */
  slice(
    begin: number,
    end: number,
  ): {
    /** The bytes themselves. */
    arrayBuffer(): Promise<ArrayBuffer>;
  };
}

/** Bytes in memory as a source; messages call it by `name`. */
export function bytesSource(bytes: Uint8Array, name = "buffer"): Source {
  return {
    name,
    size: bytes.byteLength,
    read: (offset, length) => Promise.resolve(bytes.slice(offset, offset + length)),
  };
}

/** A Blob or File of a page as a source: only what is read is loaded. */
export function blobSource(blob: BlobLike, name: string): Source {
  return {
    name,
    size: blob.size,
    read: async (offset, length) => new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer()),
  };
}

/** Files held in memory, or picked in a page: name -> content. */
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
  if (bytes.byteLength !== length) {
    throw wrong(source.name, `${bytes.byteLength} bytes at offset ${offset}`, `${length} bytes`, {
      hint: "The file is cut short, or changed while it was read.",
    });
  }
  return bytes;
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

/** Whole files of text (configs, indices) above this are refused before they are read. */
const MAX_TEXT_BYTES = 256 * 2 ** 20;

/** The text of a file; null if there is none of that name. */
export async function readText(files: Files, name: string): Promise<string | null> {
  const source = await files.open(name);
  if (source === null) return null;
  try {
    if (source.size > MAX_TEXT_BYTES) {
      throw wrong(source.name, `${source.size} bytes of text`, `at most ${MAX_TEXT_BYTES}`);
    }
    return decodeUtf8(await readExactly(source, 0, source.size), source.name);
  } finally {
    await source.close?.();
  }
}

/** Parses JSON, after a scan that bounds the nesting and finds keys given twice, which JSON.parse would let pass. */
export function parseJson(text: string, file: string, maxDepth = 64): unknown {
  scanJson(text, file, maxDepth);
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw wrong(file, (cause as Error).message, "JSON");
  }
}

/** Parses JSON that must be an object. */
export function parseJsonObject(text: string, file: string, maxDepth = 64): Record<string, unknown> {
  const value = parseJson(text, file, maxDepth);
  if (!isRecord(value)) throw wrong(file, describeValue(value), "a JSON object");
  return value;
}

/** Whether a value is an object, and neither null nor an array. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether `name` names a file in the directory itself: no separators, no parent, nothing hidden in it. */
export function isPlainFileName(name: string): boolean {
  // "\0" would end the name early for the operating system; ":" is a drive, or a stream, on Windows
  return name !== "" && name !== "." && name !== ".." && name.length < 256 && !/[/\\:\0]/.test(name);
}

/** A value from a file, cut to `length`, which fits a message. */
export function describeValue(value: unknown, length: number = 80): string {
  return clip(textOf(value), length);
}

function textOf(value: unknown): string {
  if (value === undefined) return "nothing";
  try {
    return JSON.stringify(value);
  } catch {
    return "something that is nested too deeply to show"; // V8 recurses, up to its stack's end
  }
}

function quote(name: string): string {
  return JSON.stringify(clip(name, 200));
}

/** What a file holds may be as long as the file: a message may not. */
function clip(text: string, length: number): string {
  return text.length > length ? `${text.slice(0, length - 3)}...` : text;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/** Throws for nesting beyond `maxDepth` and for repeated keys. Text that is not JSON may pass: JSON.parse comes next. */
function scanJson(text: string, file: string, maxDepth: number): void {
  const open: (Set<string> | null)[] = []; // the keys of an object; null for an array
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
      return; // JSON.parse will refuse the whole text, and say where
    }
  }
  if (keys.has(key)) {
    throw wrong(file, `the key ${describeValue(key.slice(1, -1))} twice`, "every key once");
  }
  keys.add(key);
}
