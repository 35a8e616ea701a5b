/**
 * Reads the text of a data file, piece by piece, in time linear in its size, however long its lines are. The bytes must be UTF-8,
 * or UTF-16 after a byte-order mark; anything else is an error with its position, instead of being read as U+FFFD.
 */
import { DataError } from "./errors.ts";

/** A file's content in pieces of bytes or text, and its name. A Blob's `stream()` yields such pieces. */
export interface TextFile {
  /** The name of the file in messages; its extension determines the format (see `formatOf`). */
  readonly name: string;
  /** Yields the content, from the beginning at each call. */
  pieces(): AsyncIterable<string | Uint8Array>;
}

/** An encoding, with the checks that its decoder does not provide. */
interface Encoding {
  readonly label: string;
  readonly title: string;
  readonly mark: readonly number[];
  /** The number of bytes at the end of `bytes` that may be the beginning of an incomplete character. */
  unfinished(bytes: Uint8Array): number;
  /** The index of the first bytes that encode no character; -1 if all bytes are well formed. */
  fault(bytes: Uint8Array): number;
}

const UTF8: Encoding = {
  label: "utf-8",
  title: "UTF-8",
  mark: [0xef, 0xbb, 0xbf],
  unfinished(bytes) {
    for (let back = 1; back <= Math.min(3, bytes.length); back++) {
      const byte = bytes[bytes.length - back]!;
      if (byte >= 0xc0) return back < sequenceLength(byte) ? back : 0;
      if (byte < 0x80) return 0;
    }
    return 0;
  },
  fault(bytes) {
    for (let at = 0; at < bytes.length;) {
      const length = wellFormed(bytes, at);
      if (length === 0) return at;
      at += length;
    }
    return -1;
  },
};

const sequenceLength = (first: number): number =>
  first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;

/**
 * First byte of a UTF-8 sequence -> range of its second byte, where that is smaller than 0x80 to 0xbf; this excludes overlong
 * forms, surrogates, and code points above U+10FFFF.
 */
const SECOND: Readonly<Record<number, readonly [number, number]>> = {
  0xe0: [0xa0, 0xbf],
  0xed: [0x80, 0x9f],
  0xf0: [0x90, 0xbf],
  0xf4: [0x80, 0x8f],
};

/** The length in bytes of the well-formed UTF-8 sequence at `at`; 0 if there is none. */
function wellFormed(bytes: Uint8Array, at: number): number {
  const first = bytes[at]!;
  const length = sequenceLength(first);
  for (let i = 1; i < length; i++) {
    const [low, high] = (i === 1 && SECOND[first]) || [0x80, 0xbf];
    const byte = bytes[at + i] ?? 0;
    if (byte < low || byte > high) return 0;
  }
  return length;
}

const utf16 = (title: string, mark: readonly [number, number], label: string, high: 0 | 1): Encoding => {
  const isLead = (bytes: Uint8Array, at: number): boolean => (bytes[at + high]! & 0xfc) === 0xd8;
  const isTrail = (bytes: Uint8Array, at: number): boolean => (bytes[at + high]! & 0xfc) === 0xdc;
  return {
    label,
    title,
    mark,
    unfinished(bytes) {
      const odd = bytes.length % 2;
      const last = bytes.length - odd - 2;
      return last >= 0 && isLead(bytes, last) ? odd + 2 : odd;
    },
    fault(bytes) {
      for (let at = 0; at < bytes.length; at += 2) {
        if (at + 1 === bytes.length || isTrail(bytes, at)) return at;
        if (!isLead(bytes, at)) continue;
        if (at + 3 >= bytes.length || !isTrail(bytes, at + 2)) return at;
        at += 2;
      }
      return -1;
    },
  };
};

const ENCODINGS: readonly Encoding[] = [
  UTF8,
  utf16("UTF-16", [0xff, 0xfe], "utf-16le", 1),
  utf16("UTF-16", [0xfe, 0xff], "utf-16be", 0),
];
const LONGEST_MARK = 3;

/** Yields the text of a file in pieces, without a byte-order mark. Throws DataError with line and offset of what is not text. */
export async function* textOf(file: TextFile): AsyncGenerator<string> {
  const reader = new Reader(file.name);
  for await (const piece of file.pieces()) {
    const text = typeof piece === "string" ? reader.take(piece) : reader.decode(piece);
    if (text !== "") yield text;
  }
  const rest = reader.end();
  if (rest !== "") yield rest;
}

/** The whole text of a file. */
export async function wholeText(file: TextFile): Promise<string> {
  const pieces: string[] = [];
  for await (const piece of textOf(file)) pieces.push(piece);
  return pieces.join("");
}

class Reader {
  readonly #file: string;
  #encoding: Encoding | null = null;
  #decoder: TextDecoder | null = null;
  /** The bytes that are not decoded yet. */
  #rest: Uint8Array = new Uint8Array(0);
  /** The number of bytes, or characters of text, before them. */
  #offset = 0;
  #line = 1;
  #begun = false;

  constructor(file: string) {
    this.#file = file;
  }

  /** Checks a piece of text that was decoded elsewhere, and returns it without a byte-order mark. */
  take(text: string): string {
    const clean = this.#begun || !text.startsWith("\ufeff") ? text : text.slice(1);
    this.#begun ||= text !== "";
    this.#check(clean, "character", (at) => at + text.length - clean.length);
    this.#offset += text.length;
    return clean;
  }

  decode(piece: Uint8Array, last = false): string {
    let bytes = this.#rest.length === 0 ? piece : joined(this.#rest, piece);
    if (this.#encoding === null) {
      if (bytes.length < LONGEST_MARK && !last) {
        this.#rest = bytes.slice();
        return "";
      }
      const marked = ENCODINGS.find(({ mark }) => mark.every((byte, i) => bytes[i] === byte));
      this.#encoding = marked ?? UTF8;
      this.#offset = marked?.mark.length ?? 0;
      bytes = bytes.subarray(this.#offset);
      this.#decoder = new TextDecoder(this.#encoding.label, { fatal: true, ignoreBOM: true });
    }
    const whole = bytes.length - (last ? 0 : this.#encoding.unfinished(bytes));
    this.#rest = bytes.slice(whole);
    return this.#decodeWhole(bytes.subarray(0, whole), this.#encoding);
  }

  end(): string {
    return this.#rest.length === 0 ? "" : this.decode(new Uint8Array(0), true);
  }

  #decodeWhole(bytes: Uint8Array, encoding: Encoding): string {
    let text: string;
    try {
      text = this.#decoder!.decode(bytes);
    } catch {
      const at = encoding.fault(bytes);
      const before = new TextDecoder(encoding.label, { ignoreBOM: true }).decode(bytes.subarray(0, at));
      const shown = Array.from(bytes.subarray(at, at + (encoding === UTF8 ? 1 : 2)), hex).join(" ");
      this.#fail(
        lines(before),
        `byte ${shown} at offset ${this.#offset + at} is not ${encoding.title} text. Data is UTF-8, or UTF-16 with a ` +
          "byte-order mark: convert the file, e.g. by iconv -f WINDOWS-1252 -t UTF-8",
      );
    }
    this.#check(text, "byte", (at) => (encoding === UTF8 ? byteLength(text, at) : 2 * at));
    this.#offset += bytes.length;
    return text;
  }

  /** Counts lines, and throws for a NUL; `offset` gives the number of units in the piece before a character. */
  #check(text: string, unit: "byte" | "character", offset: (at: number) => number): void {
    const nul = text.indexOf("\0");
    if (nul >= 0)
      this.#fail(
        lines(text.slice(0, nul)),
        `a NUL ${unit} at offset ${this.#offset + offset(nul)}, which no text has. Is it a binary file, or UTF-16 without ` +
          "a byte-order mark?",
      );
    this.#line += lines(text);
  }

  #fail(linesBefore: number, message: string): never {
    throw new DataError(this.#file, this.#line + linesBefore, message);
  }
}

const hex = (byte: number): string => `0x${byte.toString(16).toUpperCase().padStart(2, "0")}`;

const byteLength = (text: string, end: number): number => new TextEncoder().encode(text.slice(0, end)).length;

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const both = new Uint8Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}

/** The number of line ends in `text`. */
function lines(text: string): number {
  let count = 0;
  for (let i = text.indexOf("\n"); i >= 0; i = text.indexOf("\n", i + 1)) count++;
  return count;
}
