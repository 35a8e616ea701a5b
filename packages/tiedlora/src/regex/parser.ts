/** Parses regular expressions. Throws PatternError with the position of what is unsupported or too large. */
import { type Ast, type CharTest, PatternError, type PositionTest } from "./syntax.ts";

const MAX_SOURCE = 4000;
const MAX_REPEAT = 1000;
const MAX_DEPTH = 100;

const isDigit = (c: number): boolean => c >= 48 && c <= 57;
const isWord = (c: number): boolean =>
  isDigit(c) || (c >= 65 && c <= 90) || (c >= 97 && c <= 122) || c === 95;
const isSpace = (c: number): boolean => c === 32 || (c >= 9 && c <= 13);
const not =
  (test: (c: number) => boolean) =>
  (c: number): boolean =>
    !test(c);

const CLASSES: Readonly<Record<string, CharTest>> = {
  d: isDigit,
  D: not(isDigit),
  w: isWord,
  W: not(isWord),
  s: isSpace,
  S: not(isSpace),
};
const CONTROL: Readonly<Record<string, string>> = { n: "\n", t: "\t", r: "\r", f: "\f", v: "\v" };

const atBoundary = (text: string, at: number): boolean =>
  (at > 0 && isWord(text.charCodeAt(at - 1))) !== (at < text.length && isWord(text.charCodeAt(at)));
const ASSERTIONS: Readonly<Record<string, PositionTest>> = {
  b: atBoundary,
  B: (text, at) => !atBoundary(text, at),
  A: (_text, at) => at === 0,
  Z: (text, at) => at === text.length,
};

/** Parses a pattern. Throws PatternError if it is malformed, unsupported or too large. */
export function parsePattern(source: string): Ast {
  return new Parser(source).parse();
}

class Parser {
  readonly #source: string;
  #at = 0;
  #depth = 0;
  #ignoreCase = false;

  constructor(source: string) {
    this.#source = source;
    if (source.length > MAX_SOURCE) this.#fail(`it is longer than ${MAX_SOURCE} characters`);
  }

  parse(): Ast {
    if (this.#source.startsWith("(?i)")) {
      this.#ignoreCase = true;
      this.#at = 4;
    }
    const ast = this.#choice();
    if (this.#at < this.#source.length) this.#fail("a ) without its (");
    return ast;
  }

  #fail(problem: string): never {
    throw new PatternError(this.#source, this.#at, problem);
  }

  #peek(): string | undefined {
    return this.#source[this.#at];
  }

  #take(text: string): boolean {
    if (!this.#source.startsWith(text, this.#at)) return false;
    this.#at += text.length;
    return true;
  }

  #choice(): Ast {
    if (++this.#depth > MAX_DEPTH) this.#fail("groups are nested too deep");
    const options = [this.#sequence()];
    while (this.#take("|")) options.push(this.#sequence());
    this.#depth--;
    return options.length === 1 ? options[0]! : { type: "choice", options };
  }

  #sequence(): Ast {
    const parts: Ast[] = [];
    for (let c = this.#peek(); c !== undefined && c !== "|" && c !== ")"; c = this.#peek())
      parts.push(this.#quantified());
    return { type: "sequence", parts };
  }

  #quantified(): Ast {
    const body = this.#atom();
    const bounds = this.#bounds();
    if (bounds === null) return body;
    if (this.#take("+")) this.#fail("possessive quantifiers are not supported");
    this.#take("?"); // a lazy quantifier accepts the same texts
    if (body.type === "assert" || body.type === "look") this.#fail("an assertion cannot be repeated");
    if (this.#bounds() !== null) this.#fail("two quantifiers in a row");
    return { type: "repeat", body, ...bounds };
  }

  #bounds(): { min: number; max: number } | null {
    if (this.#take("*")) return { min: 0, max: Infinity };
    if (this.#take("+")) return { min: 1, max: Infinity };
    if (this.#take("?")) return { min: 0, max: 1 };
    const found = /^\{(\d*)(,?)(\d*)\}/.exec(this.#source.slice(this.#at, this.#at + 20));
    if (found === null || (found[1] === "" && found[3] === "")) return null;
    this.#at += found[0].length;
    const min = Number(found[1]);
    const max = found[2] === "" ? min : found[3] === "" ? Infinity : Number(found[3]);
    if (min > MAX_REPEAT || (max !== Infinity && max > MAX_REPEAT) || max < min)
      this.#fail(`a repeat of ${found[0]}; at most ${MAX_REPEAT} times, in rising order`);
    return { min, max };
  }

  #atom(): Ast {
    const c = this.#source[this.#at++]!;
    switch (c) {
      case "(":
        return this.#group();
      case "[":
        return { type: "char", test: this.#folded(this.#set()) };
      case ".":
        return { type: "char", test: (code) => code !== 10 };
      case "^":
        return { type: "assert", test: ASSERTIONS["A"]! };
      case "$":
        return { type: "assert", test: ASSERTIONS["Z"]! };
      case "\\":
        return this.#escape();
      case "*":
      case "+":
      case "?":
        this.#at--;
        return this.#fail(`nothing that ${c} could repeat`);
      default:
        return this.#literal(c);
    }
  }

  #literal(c: string): Ast {
    const wanted = c.charCodeAt(0);
    return { type: "char", test: this.#folded((code) => code === wanted) };
  }

  #folded(test: CharTest): CharTest {
    if (!this.#ignoreCase) return test;
    const swap = (code: number, by: (s: string) => string): number =>
      by(String.fromCharCode(code)).charCodeAt(0);
    return (code) =>
      test(code) || test(swap(code, (s) => s.toLowerCase())) || test(swap(code, (s) => s.toUpperCase()));
  }

  #group(): Ast {
    const close = (body: Ast): Ast => (this.#take(")") ? body : this.#fail("a ( that is not closed"));
    if (this.#take("?=")) return close({ type: "look", body: this.#choice(), negative: false });
    if (this.#take("?!")) return close({ type: "look", body: this.#choice(), negative: true });
    if (this.#take("?:")) return close(this.#choice());
    const name = /^\?P?<[A-Za-z_]\w*>/.exec(this.#source.slice(this.#at, this.#at + 100));
    if (name !== null) this.#at += name[0].length;
    else if (this.#peek() === "?")
      return this.#fail(
        "this kind of group is not supported; use (...), (?:...), (?P<name>...), (?=...) or (?!...)",
      );
    return close(this.#choice());
  }

  #escape(): Ast {
    const c = this.#source[this.#at++] ?? this.#fail("a \\ at the end");
    const test = CLASSES[c];
    if (test !== undefined) return { type: "char", test };
    const assertion = ASSERTIONS[c];
    if (assertion !== undefined) return { type: "assert", test: assertion };
    if (isDigit(c.charCodeAt(0))) return this.#fail("back-references are not supported");
    const control = CONTROL[c];
    if (control === undefined && /[A-Za-z]/.test(c)) return this.#fail(`\\${c} is not supported`);
    return this.#literal(control ?? c);
  }

  /** Parses the rest of a set, after its [. */
  #set(): CharTest {
    const negative = this.#take("^");
    const tests: CharTest[] = [];
    for (let first = true; first || this.#peek() !== "]"; first = false) {
      const from = this.#setItem();
      if (typeof from === "function") {
        tests.push(from);
      } else if (this.#peek() === "-" && this.#source[this.#at + 1] !== "]") {
        this.#at++;
        const to = this.#setItem();
        if (typeof to === "function" || to < from) this.#fail("a range that does not rise");
        tests.push((code) => code >= from && code <= to);
      } else {
        tests.push((code) => code === from);
      }
    }
    this.#at++;
    return (code) => tests.some((test) => test(code)) !== negative;
  }

  #setItem(): number | CharTest {
    const c = this.#source[this.#at++] ?? this.#fail("a [ that is not closed");
    if (c !== "\\") return c.charCodeAt(0);
    const escaped = this.#source[this.#at++] ?? this.#fail("a \\ at the end");
    const test = CLASSES[escaped];
    if (test !== undefined) return test;
    if (/[A-Za-z0-9]/.test(escaped) && CONTROL[escaped] === undefined)
      return this.#fail(`\\${escaped} in a set is not supported`);
    return (CONTROL[escaped] ?? escaped).charCodeAt(0);
  }
}
