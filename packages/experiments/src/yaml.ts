/**
 * Reads the YAML of settings and sweeps as plain data; errors name the file and the line. Anchors and aliases are allowed, but
 * bounded, so that a short file cannot expand to endless data.
 */
import { describeValue, FileError } from "@tiedlora/core";
import {
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseDocument,
  type YAMLMap,
} from "yaml";

/** A mistake in a YAML file. */
export class YamlError extends FileError {
  /** Counted from 1; null if the error concerns the file as a whole. */
  readonly line: number | null;

  constructor(file: string, line: number | null, message: string) {
    const place = line === null ? null : `line ${line}`;
    super(file, place, place === null ? `${file}: ${message}` : `${file}, ${place}: ${message}`);
    this.name = "YamlError";
    this.line = line;
  }
}

/** A parsed file, with the means to locate its nodes. */
export interface YamlFile {
  readonly document: Document.Parsed;
  /** Offset in the text -> line, from 1. */
  readonly lineAt: (offset: number) => number;
  /** A node as plain data: aliases are replaced by the values that they name. */
  readonly plain: (node: unknown) => unknown;
}

/** The most characters of a file; far more than a person writes. */
const MAX_LENGTH = 2 ** 16;
const MAX_DEPTH = 64;
/** The most values of a file; a value counts again for each alias that names it. */
const MAX_VALUES = 100_000;

/** Parses a file. Throws YamlError with the line of the mistake. */
export function readYaml(text: string, file: string): YamlFile {
  if (text.length > MAX_LENGTH)
    throw new YamlError(file, null, `${text.length} characters; expected at most ${MAX_LENGTH}`);
  checkDepth(text, file);
  const lines = new LineCounter();
  // Repeated keys are found below: the parser would compare every key with every other.
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: false });
  const lineAt = (offset: number): number => lines.linePos(offset).line;
  const mistake = document.errors[0] ?? document.warnings[0];
  if (mistake !== undefined)
    throw new YamlError(file, lineAt(mistake.pos[0]), `not YAML: ${mistake.message}`);
  const reader = new Reader(document, file, lineAt);
  return { document, lineAt, plain: (node) => reader.plain(node, []) };
}

class Reader {
  readonly #document: Document;
  readonly #file: string;
  readonly #lineAt: (offset: number) => number;
  readonly #anchors = new Map<string, Node>();
  #values = 0;

  constructor(document: Document, file: string, lineAt: (offset: number) => number) {
    this.#document = document;
    this.#file = file;
    this.#lineAt = lineAt;
  }

  /** `inside` has the nodes that contain this one. */
  plain(node: unknown, inside: readonly unknown[]): unknown {
    if (node === null || node === undefined) return null;
    if (++this.#values > MAX_VALUES)
      this.#fail(
        inside.find(isAlias) ?? node,
        `more than ${MAX_VALUES} values, with those that aliases (*) stand for`,
      );
    if (inside.includes(node)) this.#fail(node, "a value that contains itself");
    const within = [...inside, node];
    if (isAlias(node)) return this.plain(this.#target(node.source, node), within);
    if (isScalar(node)) return this.#scalar(node.value, node);
    if (isSeq(node)) {
      this.#name(node);
      return node.items.map((item) => this.plain(item, within));
    }
    if (isMap(node)) {
      this.#name(node);
      return this.#map(node, within);
    }
    return this.#fail(node, "a value of this kind is not supported");
  }

  #scalar(value: unknown, node: Node): unknown {
    this.#name(node);
    if (value === null || ["string", "number", "boolean"].includes(typeof value)) return value;
    return this.#fail(node, "a value of this kind is not supported");
  }

  #map(map: YAMLMap, within: readonly unknown[]): Record<string, unknown> {
    const found = new Map<string, unknown>();
    for (const { key, value } of map.items) {
      const name = this.plain(key, within);
      if (typeof name === "object" && name !== null) this.#fail(key, "a key that is no plain text");
      if (found.has(String(name))) this.#fail(key, `the key ${describeValue(name)} twice`);
      found.set(String(name), this.plain(value, within));
    }
    return Object.fromEntries(found);
  }

  #name(node: Node & { readonly anchor?: string | undefined }): void {
    if (node.anchor !== undefined) this.#anchors.set(node.anchor, node);
  }

  /** The node that an alias names: the last one before it with that anchor. */
  #target(name: string, alias: unknown): Node {
    const named = this.#anchors.get(name);
    if (named !== undefined) return named;
    return this.#fail(alias, `*${name} stands for nothing; name a value before it by &${name}`);
  }

  #fail(node: unknown, message: string): never {
    const range = (node as { readonly range?: readonly number[] | null } | null)?.range;
    const start = range?.[0] ?? this.#document.contents?.range?.[0];
    throw new YamlError(this.#file, start === undefined ? null : this.#lineAt(start), message);
  }
}

/**
 * Throws YamlError if a file is nested too deeply. The parser calls itself for each level, and many levels would overflow the
 * stack: they are counted first, from brackets, indentation and the dashes of a line, even if these are inside of quotes.
 */
function checkDepth(text: string, file: string): void {
  let open = 0;
  const indents: number[] = [];
  for (const [i, line] of text.split("\n").entries()) {
    const indent = line.length - line.trimStart().length;
    while (indents.length > 0 && indents.at(-1)! >= indent) indents.pop();
    if (indent < line.length) indents.push(indent);
    let dashes = 0;
    for (let at = indent; /^[-?:][ \t]/.test(line.slice(at, at + 2)) && dashes <= MAX_DEPTH; dashes++) {
      at += 2;
      while (line[at] === " " || line[at] === "\t") at++;
    }
    for (const c of line) {
      if (c === "[" || c === "{") open++;
      else if ((c === "]" || c === "}") && open > 0) open--;
      if (open > MAX_DEPTH) break;
    }
    if (open > MAX_DEPTH || indents.length > MAX_DEPTH || dashes > MAX_DEPTH)
      throw new YamlError(file, i + 1, `nested deeper than ${MAX_DEPTH} levels`);
  }
}
