/** Mutations of JSON as a tree: values of other types and sizes; keys that are removed, repeated or swapped. */
import type { Random } from "./random.ts";

/** Text that is written unchanged, for values that JSON.stringify cannot write. */
class Raw {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

type Tree = Raw | string | number | boolean | null | Tree[] | Map<string, Tree>;
/** A place in the tree: its value, and the parent and key by which it can be replaced. */
interface Place {
  readonly value: Tree;
  readonly parent: Tree[] | Map<string, Tree> | null;
  readonly key: string | number;
}

/** The text with one mutation; null if it is not JSON. */
export function mutateJson(text: string, random: Random, words: readonly string[]): string | null {
  let root: Tree;
  try {
    root = toTree(JSON.parse(text));
  } catch {
    return null;
  }
  const places = placesOf(root);
  const place = choose(places, random);
  const change = random.pick(CHANGES)(place, random, places, words);
  if (change !== undefined) {
    if (place.parent === null) root = change;
    else put(place, change);
  }
  return write(root, random.chance(0.04) ? random.pick(places).value : null);
}

function toTree(value: unknown): Tree {
  if (Array.isArray(value)) return value.map(toTree);
  if (typeof value === "object" && value !== null) return new Map(Object.entries(value).map(([key, item]) => [key, toTree(item)])); // prettier-ignore
  return value as Tree;
}

function placesOf(root: Tree): Place[] {
  const places: Place[] = [{ value: root, parent: null, key: "" }];
  for (const { value } of places) {
    if (Array.isArray(value)) value.forEach((item, key) => places.push({ value: item, parent: value, key }));
    else if (value instanceof Map)
      for (const [key, item] of value) places.push({ value: item, parent: value, key });
    if (places.length > 3000) break;
  }
  return places;
}

/** Chooses a place. In large trees, places near the root are more likely: vocabularies have thousands of similar ones. */
function choose(places: readonly Place[], random: Random): Place {
  return places[Math.floor(places.length * random.number() ** (places.length > 60 ? 3 : 1))]!;
}

function put({ parent, key }: Place, value: Tree): void {
  if (Array.isArray(parent)) parent[key as number] = value;
  else parent?.set(key as string, value);
}

const NUMBERS: readonly Tree[] = [
  0, -1, 1, 2, 3, 7, 0.5, -0.5, 64, 1000, 100_000, 1e9, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 53 - 1, 2 ** 53, 1e18, 1e38, 1e308, 1e-7, 1e-38, 1e-310,
  1e-320, 5e-324, new Raw("-0"), new Raw("1e400"), new Raw("-1e400"), new Raw("1e-400"), new Raw("NaN"), new Raw("123456789012345678901234567890"),
]; // prettier-ignore

const OTHERS: readonly Tree[] = [
  null, true, false, "", " ", "0", "1", "a", "null", "\0", "../../etc/passwd", "__proto__", "constructor", "😀", "\ud800", "x".repeat(5000),
  [], new Map(), [[]], [null], [1, 2, 3], new Map([["a", 1]]), new Raw("[".repeat(60) + "]".repeat(60)), new Raw("[".repeat(50_000) + "]".repeat(50_000)),
  new Raw('{"a":'.repeat(2000) + "1" + "}".repeat(2000)), new Raw("undefined"), new Raw("{"), new Raw(`"\\u00"`), new Raw(`[${"0,".repeat(20_000)}0]`),
]; // prettier-ignore

type Change = (
  place: Place,
  random: Random,
  places: readonly Place[],
  words: readonly string[],
) => Tree | undefined;

const CHANGES: readonly Change[] = [
  (_place, random) => random.pick(NUMBERS),
  (_place, random) => random.pick(NUMBERS),
  (_place, random) => random.pick(OTHERS),
  (_place, random, _places, words) => (words.length > 0 ? random.pick(words) : random.pick(OTHERS)),
  (_place, random, places) => copy(random.pick(places).value),
  function nearby({ value }, random) {
    if (typeof value === "number") return random.pick([value + 1, value - 1, -value, value * 2, value * 1000, value / 3, String(value) as Tree]);
    if (typeof value === "boolean") return !value;
    if (typeof value === "string") return random.pick([value + value, value.slice(1), value.toUpperCase(), `${value}.`, [value] as Tree]);
    if (Array.isArray(value)) return random.pick([value.concat(value), value.slice(1), value.toReversed(), value[0] ?? null, repeated(value)]);
    return value === null ? 0 : undefined;
  },
  function remove({ parent, key }) {
    if (Array.isArray(parent)) parent.splice(key as number, 1);
    else parent?.delete(key as string);
    return undefined;
  },
  function rename({ parent, key, value }, random) {
    if (!(parent instanceof Map)) return [value];
    parent.delete(key as string);
    parent.set(random.pick([`${key}_`, String(key).slice(1), "__proto__", "constructor", "toString", ""]), value);
    return undefined;
  },
  function addKey({ value }, random, places) {
    const name = random.pick(["a", "__proto__", "hasOwnProperty", "length", "0", String(random.pick(places).key)]);
    return value instanceof Map ? new Map([...value, [name, copy(random.pick(places).value)]]) : new Map([[name, value]]);
  },
]; // prettier-ignore

function copy(tree: Tree): Tree {
  if (Array.isArray(tree)) return tree.map(copy);
  return tree instanceof Map ? new Map([...tree].map(([key, item]) => [key, copy(item)])) : tree;
}

function repeated(list: Tree[]): Tree[] {
  return Array.from({ length: list.length * 50 }, (_, i) => list[i % list.length]!);
}

/** The tree as JSON; the first key of the object `twice` is written twice. */
function write(tree: Tree, twice: Tree): string {
  if (tree instanceof Raw) return tree.text;
  if (Array.isArray(tree)) return `[${tree.map((item) => write(item, twice)).join(",")}]`;
  if (!(tree instanceof Map)) return JSON.stringify(tree) ?? "null";
  const fields = [...tree].map(([key, item]) => `${JSON.stringify(key)}:${write(item, twice)}`);
  if (tree === twice && fields.length > 0) fields.push(fields[0]!);
  return `{${fields.join(",")}}`;
}
