/**
 * Checks the parts of a tokenizer.json that the package reading it takes on trust: ids become array indices, lists are
 * iterated, and patterns are run by a backtracking engine. The checks come first, so that they also protect browsers, where
 * nothing could stop an endless match.
 */
import { describeValue, FormatError, isRecord } from "@tiedlora/core";

/** How far ids may go beyond twice the number of tokens: vocabularies have gaps, and padding. */
const ROOM = 100_000;

type Json = Readonly<Record<string, unknown>>;

/** Throws FormatError, which names the field that is wrong. */
export function checkTokenizer(tokenizer: Json, file: string): void {
  const fail = (tensor: string, found: unknown, expected: string, hint?: string): never => {
    throw new FormatError({ file, tensor, found: typeof found === "string" ? found : describeValue(found), expected, hint }); // prettier-ignore
  };
  const { model } = tokenizer;
  if (!isRecord(model)) return fail("model", model, "the vocabulary");
  const { type, vocab } = model;
  // The package would guess the meaning of an unknown type from the vocabulary's form, which is right only for older files
  // without a type.
  if (type !== undefined && type !== "BPE" && type !== "Unigram" && type !== "WordPiece")
    fail("model.type", describeValue(type), "BPE, Unigram or WordPiece");
  const added = addedTokens(tokenizer["added_tokens"], fail);
  if (Array.isArray(vocab)) checkScores(vocab, model["unk_id"], fail);
  else if (isRecord(vocab))
    checkIds(Object.entries(vocab), Object.keys(vocab).length + added.length, "model.vocab", fail); // prettier-ignore
  else fail("model.vocab", vocab, "tokens with their ids, or a list of tokens with their scores");
  const size = (Array.isArray(vocab) ? vocab.length : Object.keys(vocab as Json).length) + added.length;
  checkIds(added, size, "added_tokens", fail);
  checkMerges(model["merges"], fail);
  checkTypes(tokenizer, fail);
  checkPatterns(tokenizer, "", fail);
}

type Fail = (field: string, found: unknown, expected: string, hint?: string) => never;

function addedTokens(value: unknown, fail: Fail): (readonly [string, unknown])[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) return fail("added_tokens", value, "a list of tokens");
  return value.map((one: unknown, i): readonly [string, unknown] => {
    if (!isRecord(one) || typeof one["content"] !== "string" || one["content"] === "")
      return fail(`added_tokens.${i}`, one, "a token: { id, content, … }");
    return [one["content"], one["id"]];
  });
}

function checkIds(
  tokens: readonly (readonly [string, unknown])[],
  size: number,
  field: string,
  fail: Fail,
): void {
  const seen = new Map<unknown, string>();
  for (const [token, id] of tokens) {
    const at = `${field}.${token}`;
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) >= 2 * size + ROOM)
      fail(at, `the id ${describeValue(id)}`, `a whole number from 0 on, near those of the ${size} tokens`);
    const other = seen.get(id);
    if (other !== undefined && other !== token) fail(at, `the id ${describeValue(id)}, which ${describeValue(other)} has`, "an id of its own"); // prettier-ignore
    seen.set(id, token);
  }
}

function checkScores(vocab: readonly unknown[], unknown: unknown, fail: Fail): void {
  for (const [i, entry] of vocab.entries()) {
    const valid = Array.isArray(entry) && typeof entry[0] === "string" && Number.isFinite(entry[1]);
    if (!valid) fail(`model.vocab.${i}`, entry, "a token with its score");
  }
  if (
    unknown !== undefined &&
    unknown !== null &&
    !(Number.isInteger(unknown) && vocab[unknown as number] !== undefined)
  )
    // prettier-ignore
    fail("model.unk_id", unknown, `the place of a token, below ${vocab.length}`);
}

/** Checks the merges; the package assumes that all of them have the form of the first. */
function checkMerges(merges: unknown, fail: Fail): void {
  if (merges === undefined || merges === null) return;
  if (!Array.isArray(merges)) return fail("model.merges", merges, "a list of pairs");
  const isText = (one: unknown): boolean => typeof one === "string" && /^[^ ]+ [^ ]+$/.test(one);
  const isPair = (one: unknown): boolean => Array.isArray(one) && one.length === 2 && one.every((part) => typeof part === "string"); // prettier-ignore
  const expected = typeof merges[0] === "string" ? isText : isPair;
  const wrong = merges.findIndex((one) => !expected(one));
  if (wrong >= 0) fail(`model.merges.${wrong}`, merges[wrong], "a pair of tokens, written as the first is");
}

const COMPONENTS: readonly string[] = ["normalizer", "pre_tokenizer", "post_processor", "decoder"];

/** Checks every { "Regex": … } in the parts that process text. */
function checkPatterns(tokenizer: Json, path: string, fail: Fail): void {
  const look = (value: unknown, at: string): void => {
    if (Array.isArray(value)) value.forEach((one, i) => look(one, `${at}.${i}`));
    if (!isRecord(value)) return;
    for (const [key, one] of Object.entries(value)) {
      if (key === "Regex" && typeof one === "string") {
        const risk = riskOf(one);
        if (risk !== null) fail(`${at}.Regex`, `the pattern ${describeValue(one)}, with ${risk}`, "a pattern that is matched in time", "It could take forever on some texts. Simplify it: leave repeats and alternatives out of the repeated group."); // prettier-ignore
      } else look(one, `${at}.${key}`);
    }
  };
  for (const name of COMPONENTS) look(tokenizer[name], `${path}${name}`);
}

/** Checks that types are text: the package quotes an unknown type in its error message, whatever the value is. */
function checkTypes(tokenizer: Json, fail: Fail): void {
  const look = (value: unknown, at: string): void => {
    if (Array.isArray(value)) value.forEach((one, i) => look(one, `${at}.${i}`));
    if (!isRecord(value)) return;
    if ("type" in value && typeof value["type"] !== "string")
      fail(`${at}.type`, describeValue(value["type"]), "the name of a type");
    for (const [key, one] of Object.entries(value)) if (key.endsWith("s")) look(one, `${at}.${key}`); // sequences
  };
  for (const name of COMPONENTS) look(tokenizer[name], name);
}

/** The most unbounded repeats in one alternative, one after another; patterns of published tokenizers have up to three. */
const MAX_REPEATS = 6;

/**
 * The part of a pattern that could make a backtracking engine take exponential time, or nearly: a repeated group that has
 * repeats or alternatives inside, many repeats in a row, or a back reference. Null if there is no such part.
 */
export function riskOf(pattern: string): string | null {
  if (pattern.length > 10_000) return "more than 10000 characters";
  const groups: { open: boolean; choice: boolean; repeats: number }[] = [{ open: false, choice: false, repeats: 0 }]; // prettier-ignore
  let closed: { open: boolean; choice: boolean } | null = null;
  for (let i = 0; i < pattern.length; i++) {
    const c = pattern[i]!;
    const group = groups.at(-1)!;
    const before = closed;
    closed = null;
    if (c === "\\") {
      if (/[1-9k]/.test(pattern[i + 1] ?? "")) return "a reference back";
      i++;
    } else if (c === "[") {
      i = endOfSet(pattern, i);
    } else if (c === "(") {
      if (groups.push({ open: false, choice: false, repeats: 0 }) > 50) return "groups nested deeper than 50";
    } else if (c === ")") {
      if (groups.length > 1) closed = groups.pop()!;
      const outer = groups.at(-1)!;
      outer.open ||= closed?.open ?? false;
      outer.choice ||= closed?.choice ?? false;
    } else if (c === "|") {
      group.choice = true;
      group.repeats = 0;
    } else {
      const times = repeatAt(pattern, i);
      if (times === null) continue;
      if (before !== null && times.max > 1 && (before.open || before.choice))
        return "a repeated group that has repeats or alternatives inside";
      if (times.max > 1000) {
        group.open = true;
        if (++group.repeats > MAX_REPEATS) return `more than ${MAX_REPEATS} repeats in a row`;
      }
      i += times.length - 1;
    }
  }
  return null;
}

function endOfSet(pattern: string, start: number): number {
  let depth = 0;
  for (let i = start; i < pattern.length; i++) {
    if (pattern[i] === "\\") i++;
    else if (pattern[i] === "[") depth++;
    else if (pattern[i] === "]" && --depth === 0) return i;
  }
  return pattern.length;
}

function repeatAt(pattern: string, at: number): { max: number; length: number } | null {
  const c = pattern[at]!;
  if (c === "*" || c === "+") return { max: Infinity, length: 1 };
  if (c === "?") return { max: 1, length: 1 };
  const found = c === "{" ? /^\{(\d*)(,?)(\d*)\}/.exec(pattern.slice(at, at + 24)) : null;
  if (found === null || found[0] === "{}") return null;
  const max = found[2] === "" ? Number(found[1]) : found[3] === "" ? Infinity : Number(found[3]);
  return { max, length: found[0].length };
}
