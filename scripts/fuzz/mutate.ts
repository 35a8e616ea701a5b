/** Mutations: of bytes and lines for any file, of the tree for JSON, of the header and its length for safetensors. */
import { mutateJson } from "./json.ts";
import type { Random } from "./random.ts";
import { utf8 } from "./target.ts";

type Mutation = (bytes: Uint8Array, random: Random, words: readonly string[]) => Uint8Array;

/** Changes a file once, as its name suggests. */
export function mutate(
  name: string,
  bytes: Uint8Array,
  random: Random,
  words: readonly string[],
): Uint8Array {
  if (name.endsWith(".json") && random.chance(0.8)) return mutateJsonFile(bytes, random, words);
  if (name.endsWith(".jsonl") && random.chance(0.6)) return mutateJsonLine(bytes, random, words);
  if (name.endsWith(".safetensors") && random.chance(0.6)) return mutateHeader(bytes, random, words);
  if (/\.(yaml|jinja|csv|tsv|txt|jsonl)$/.test(name) && random.chance(0.7))
    return mutateText(bytes, random, words);
  return random.pick(BYTE_MUTATIONS)(bytes, random, words);
}

/** A random range of the bytes; short ones are more likely. */
function range(length: number, random: Random): [start: number, end: number] {
  const start = random.below(length + 1);
  const size = Math.floor((length - start) * random.number() ** 4);
  return [start, start + size];
}

function splice(bytes: Uint8Array, start: number, end: number, middle: Uint8Array): Uint8Array {
  const result = new Uint8Array(start + middle.length + bytes.length - end);
  result.set(bytes.subarray(0, start));
  result.set(middle, start);
  result.set(bytes.subarray(end), start + middle.length);
  return result;
}

/** Bytes that confuse readers of text and numbers. */
const PIECES: readonly Uint8Array[] = [
  ...[
    "\0",
    "\ufeff",
    "\r",
    "\n",
    '"',
    "\\",
    "\u2028",
    "\ud83d\ude00",
    "{",
    "[",
    "}",
    "]",
    ",",
    ":",
    "NaN",
    "1e999",
  ].map(utf8),
  new Uint8Array([0xff, 0xfe]),
  new Uint8Array([0xc0, 0x80]),
  new Uint8Array([0xed, 0xa0, 0x80]), // half of a surrogate pair
  new Uint8Array([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
  new Uint8Array(8),
];

const BYTE_MUTATIONS: readonly Mutation[] = [
  function flipBit(bytes, random) {
    const result = bytes.slice();
    if (result.length > 0) result[random.below(result.length)]! ^= 1 << random.below(8);
    return result;
  },
  function setByte(bytes, random) {
    const result = bytes.slice();
    if (result.length > 0)
      result[random.below(result.length)] = random.pick([0, 1, 0x7f, 0x80, 0xff, random.below(256)]);
    return result;
  },
  function truncate(bytes, random) {
    return bytes.slice(0, random.below(bytes.length + 1));
  },
  function remove(bytes, random) {
    return splice(bytes, ...range(bytes.length, random), new Uint8Array());
  },
  function repeat(bytes, random) {
    const [start, end] = range(bytes.length, random);
    let part: Uint8Array = bytes.slice(start, end);
    for (let n = random.below(8); n > 0 && part.length < 1 << 15; n--) part = splice(part, 0, 0, part);
    return splice(bytes, end, end, part);
  },
  function insert(bytes, random) {
    const at = random.below(bytes.length + 1);
    return splice(bytes, at, at, random.pick(PIECES));
  },
  function replace(bytes, random) {
    return splice(bytes, ...range(bytes.length, random), random.pick(PIECES));
  },
  function noise(bytes, random) {
    const [start, end] = range(bytes.length, random);
    return splice(
      bytes,
      start,
      end,
      Uint8Array.from({ length: end - start }, () => random.below(256)),
    );
  },
  function move(bytes, random) {
    const [start, end] = range(bytes.length, random);
    const rest = splice(bytes, start, end, new Uint8Array());
    const at = random.below(rest.length + 1);
    return splice(rest, at, at, bytes.subarray(start, end));
  },
];

const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

function mutateJsonFile(bytes: Uint8Array, random: Random, words: readonly string[]): Uint8Array {
  const text = mutateJson(decode(bytes), random, words);
  return text === null ? random.pick(BYTE_MUTATIONS)(bytes, random, words) : utf8(text);
}

function mutateJsonLine(bytes: Uint8Array, random: Random, words: readonly string[]): Uint8Array {
  const lines = decode(bytes).split("\n");
  const at = random.below(lines.length);
  lines[at] = mutateJson(lines[at]!, random, words) ?? `${lines[at]}]`;
  return utf8(lines.join("\n"));
}

/** Mutates the JSON header of a safetensors file. The stored length is usually corrected, but in 5 % of the cases wrong. */
function mutateHeader(bytes: Uint8Array, random: Random, words: readonly string[]): Uint8Array {
  const fallback = (): Uint8Array => random.pick(BYTE_MUTATIONS)(bytes, random, words);
  if (bytes.length < 8) return fallback();
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  if (length > bytes.length - 8) return fallback();
  const text = mutateJson(decode(bytes.subarray(8, 8 + length)), random, words);
  if (text === null) return fallback();
  const header = utf8(text);
  const start = new Uint8Array(8);
  const odd = random.pick([0n, 2n ** 63n, 2n ** 64n - 1n, BigInt(bytes.length), BigInt(header.length + 1)]);
  new DataView(start.buffer).setBigUint64(0, random.chance(0.95) ? BigInt(header.length) : odd, true);
  return splice(splice(bytes, 0, 8 + length, header), 0, 0, start);
}

/** Replacements for values in YAML, CSV and templates. */
const VALUES: readonly string[] = [
  "", "*x", "&x [*x]", "&x {a: *x}", "!!binary aGk=", "!!set {a, b}", "!!float 1", ".nan", ".inf", "-.inf", "1e400", "1e-320", "5e-324",
  "-1", "0", "0.5", "1_000", "0x10", "0o7", "99999999999999999999", "2147483648", "1e9", "null", "~", "true", "[]", "{}", "|", ">-", "? a",
  "<<: *x", "[1, 2, 3]", "{a: 1}", "'", '"', "@", "`", "%TAG", "---", "...", "\t", "[[[[[[[[1]]]]]]]]", "__proto__", "constructor", "𝟙", "\u0000",
]; // prettier-ignore

/** Mutates a line, or a value after a colon, a comma or a tab. */
function mutateText(bytes: Uint8Array, random: Random, words: readonly string[]): Uint8Array {
  const lines = decode(bytes).split("\n");
  const at = random.below(lines.length);
  const line = lines[at]!;
  const value = random.chance(0.3) && words.length > 0 ? random.pick(words) : random.pick(VALUES);
  const edits: readonly (() => readonly string[])[] = [
    () => [],
    () => [line, line],
    () => [`  ${line}`],
    () => [line.trimStart()],
    () => [value],
    () => [line, value],
    () => [line.replace(/([:,\t]\s*).*$/, (_, colon: string) => colon + value)],
    () => [line.replace(/([:,\t]\s*)([^,\t]*)/, (_, colon: string, old: string) => `${colon}&x ${old}`)],
    () => [line.replace(/\w+(?=:)/, () => value)],
    () => [line.replace(/[\w.-]+/, () => value)],
    () => [line.replaceAll(random.pick([",", "\t", '"', " ", ":"]), value)],
    () => [line + value.repeat(random.pick([1, 10, 1000]))],
    () => laughs(random.pick([3, 9])).concat(line),
    () => [random.pick(["[", "{a: ", "- ", "? "]).repeat(random.pick([10, 100, 10_000]))],
  ];
  lines.splice(at, 1, ...random.pick(edits)());
  return utf8(lines.join("\n"));
}

/** The "billion laughs" attack: each line refers nine times to the line before it. */
function laughs(depth: number): string[] {
  return Array.from({ length: depth }, (_, i) => {
    const item = i === 0 ? "lol" : `*l${i - 1}`;
    return `l${i}: &l${i} [${Array(9).fill(item).join(", ")}]`;
  });
}
