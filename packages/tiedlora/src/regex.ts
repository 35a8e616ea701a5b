/**
 * Regular expressions from files, matched in time linear in the text: a config must not be able to hang its reader, as a
 * backtracking engine lets it. The syntax is what Python's re and JavaScript have in common, plus (?P<name>...), \A, \Z
 * and a leading (?i); back-references and look-behind are refused. Thompson's simulation (1968).
 */

/** Something a pattern does at one position. */
type Instruction =
  | { readonly op: "char"; readonly test: (code: number) => boolean }
  | { readonly op: "split"; readonly to: readonly number[] }
  | { readonly op: "jump"; readonly to: number }
  | { readonly op: "assert"; readonly test: (text: string, at: number) => boolean }
  | {
      readonly op: "look";
      /** Of the look-aheads of a pattern, which. */
      readonly id: number;
      readonly program: readonly Instruction[];
      readonly negative: boolean;
    }
  | { readonly op: "match" };

type Ast =
  | { readonly type: "char"; readonly test: (code: number) => boolean }
  | { readonly type: "assert"; readonly test: (text: string, at: number) => boolean }
  | { readonly type: "look"; readonly body: Ast; readonly negative: boolean }
  | { readonly type: "sequence"; readonly parts: readonly Ast[] }
  | { readonly type: "choice"; readonly options: readonly Ast[] }
  | { readonly type: "repeat"; readonly body: Ast; readonly min: number; readonly max: number };

const MAX_SOURCE = 4000;
const MAX_REPEAT = 1000;
/** Of one pattern, the programs of its look-aheads included. */
const MAX_INSTRUCTIONS = 20_000;
const MAX_DEPTH = 100;

/**
 * What the patterns of one file may cost together. Matching is linear in the text, or quadratic with look-aheads; a file can
 * still hold many patterns of many instructions, to be matched with each module of a model.
 */
export class PatternWork {
  #instructions = 0;
  #steps = 0;

  /** Counts a pattern that was compiled. */
  compiled(source: string, instructions: number): void {
    this.#instructions += instructions;
    if (this.#instructions > 10 * MAX_INSTRUCTIONS)
      throw new PatternError(source, 0, "the patterns of this file are too large together");
  }

  /** Counts what was done to match; about a second is too much. */
  step(source: string, count: number): void {
    this.#steps += count;
    if (this.#steps > 2e7)
      throw new PatternError(source, 0, "matching it with the model's modules takes too long");
  }
}

export class PatternError extends Error {
  constructor(source: string, at: number, problem: string) {
    const shown = source.length > 200 ? `${source.slice(0, 197)}...` : source;
    super(`regular expression ${JSON.stringify(shown)}, position ${at}: ${problem}`);
    this.name = "PatternError";
  }
}

/** See `compilePattern`. */
export class Pattern {
  readonly source: string;
  readonly #program: readonly Instruction[];
  readonly #work: PatternWork;
  /** By text: a pattern is asked for the same paths each time a model is planned. */
  readonly #known = new Map<string, boolean>();

  constructor(source: string, work: PatternWork) {
    this.source = source;
    this.#work = work;
    const { program, instructions } = emit(new Parser(source).parse(), source);
    work.compiled(source, instructions);
    this.#program = program;
  }

  /** Whether all of the text matches (Python's re.fullmatch). Throws PatternError where that would take too long. */
  fullMatch(text: string): boolean {
    const known = this.#known.get(text);
    if (known !== undefined) return known;
    const matches = new Match(text, (count) => this.#work.step(this.source, count)).from(
      this.#program,
      0,
      true,
    );
    if (this.#known.size < MAX_KNOWN) this.#known.set(text, matches);
    return matches;
  }
}

const MAX_KNOWN = 10_000;

/** Throws PatternError for what is not supported. `work`: what the patterns of one file share. */
export function compilePattern(source: string, work: PatternWork = new PatternWork()): Pattern {
  return new Pattern(source, work);
}

export function isPattern(value: unknown): value is Pattern {
  return value instanceof Pattern;
}

/** One text being matched. */
class Match {
  readonly #text: string;
  readonly #step: (count: number) => void;
  /** What look-aheads have found, by look-ahead and position: each is asked once, however they are nested. */
  readonly #looks = new Map<number, boolean>();

  constructor(text: string, step: (count: number) => void) {
    this.#text = text;
    this.#step = step;
  }

  /** The simulation: all positions in the program that the text read so far can be at, without duplicates. */
  from(program: readonly Instruction[], start: number, full: boolean): boolean {
    const text = this.#text;
    let current = new Set<number>();
    const matched = (set: Set<number>): boolean => [...set].some((pc) => program[pc]!.op === "match");
    this.#enter(program, current, 0, start);
    for (let at = start; at < text.length; at++) {
      if (!full && matched(current)) return true;
      const next = new Set<number>();
      const code = text.charCodeAt(at);
      this.#step(current.size);
      for (const pc of current) {
        const instruction = program[pc]!;
        if (instruction.op === "char" && instruction.test(code)) this.#enter(program, next, pc + 1, at + 1);
      }
      if (next.size === 0) return false;
      current = next;
    }
    return matched(current);
  }

  /** Adds all that can be reached without reading. */
  #enter(program: readonly Instruction[], set: Set<number>, first: number, at: number): void {
    const stack = [first];
    while (stack.length > 0) {
      const pc = stack.pop()!;
      if (set.has(pc)) continue;
      set.add(pc);
      const instruction = program[pc]!;
      if (instruction.op === "jump") stack.push(instruction.to);
      else if (instruction.op === "split") stack.push(...instruction.to);
      else if (instruction.op === "assert" && instruction.test(this.#text, at)) stack.push(pc + 1);
      else if (instruction.op === "look" && this.#look(instruction, at)) stack.push(pc + 1);
    }
  }

  #look({ id, program, negative }: Extract<Instruction, { op: "look" }>, at: number): boolean {
    const key = id * (this.#text.length + 1) + at;
    let found = this.#looks.get(key);
    if (found === undefined) this.#looks.set(key, (found = this.from(program, at, false)));
    return found !== negative;
  }
}

/** The program of a pattern, and how many instructions it has with those of its look-aheads. */
function emit(ast: Ast, source: string): { program: Instruction[]; instructions: number } {
  const emitter = new Emitter(source);
  return { program: emitter.emit(ast), instructions: emitter.count };
}

class Emitter {
  readonly #source: string;
  #visits = 0;
  #looks = 0;
  count = 0;

  constructor(source: string) {
    this.#source = source;
  }

  emit(ast: Ast): Instruction[] {
    const program: Instruction[] = [];
    this.#generate(ast, program);
    this.#add(program, { op: "match" });
    return program;
  }

  #add(program: Instruction[], instruction: Instruction): number {
    if (++this.count > MAX_INSTRUCTIONS) this.#tooLarge();
    return program.push(instruction) - 1;
  }

  #tooLarge(): never {
    throw new PatternError(this.#source, 0, "it is too large when repeats are written out");
  }

  #generate(node: Ast, program: Instruction[]): void {
    if (++this.#visits > 10 * MAX_INSTRUCTIONS) this.#tooLarge(); // what is empty, repeated, adds nothing but takes time
    switch (node.type) {
      case "char":
        this.#add(program, { op: "char", test: node.test });
        break;
      case "assert":
        this.#add(program, { op: "assert", test: node.test });
        break;
      case "look":
        this.#add(program, {
          op: "look",
          id: this.#looks++,
          program: this.emit(node.body),
          negative: node.negative,
        });
        break;
      case "sequence":
        for (const part of node.parts) this.#generate(part, program);
        break;
      case "choice":
        this.#choice(node.options, program);
        break;
      case "repeat":
        this.#repeat(node, program);
        break;
    }
  }

  #choice(options: readonly Ast[], program: Instruction[]): void {
    const split = this.#add(program, { op: "split", to: [] });
    const starts: number[] = [];
    const ends = options.map((option) => {
      starts.push(program.length);
      this.#generate(option, program);
      return this.#add(program, { op: "jump", to: 0 });
    });
    program[split] = { op: "split", to: starts };
    for (const end of ends) program[end] = { op: "jump", to: program.length };
  }

  #repeat({ body, min, max }: Extract<Ast, { type: "repeat" }>, program: Instruction[]): void {
    for (let i = 0; i < min; i++) this.#generate(body, program);
    if (max === Infinity) {
      const split = this.#add(program, { op: "split", to: [] });
      this.#generate(body, program);
      this.#add(program, { op: "jump", to: split });
      program[split] = { op: "split", to: [split + 1, program.length] };
      return;
    }
    const splits: number[] = [];
    for (let i = min; i < max; i++) {
      splits.push(this.#add(program, { op: "split", to: [] }));
      this.#generate(body, program);
    }
    for (const split of splits) program[split] = { op: "split", to: [split + 1, program.length] };
  }
}

const isDigit = (c: number): boolean => c >= 48 && c <= 57;
const isWord = (c: number): boolean =>
  isDigit(c) || (c >= 65 && c <= 90) || (c >= 97 && c <= 122) || c === 95;
const isSpace = (c: number): boolean => c === 32 || (c >= 9 && c <= 13);
const not =
  (test: (c: number) => boolean) =>
  (c: number): boolean =>
    !test(c);

const CLASSES: Readonly<Record<string, (code: number) => boolean>> = {
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
const ASSERTIONS: Readonly<Record<string, (text: string, at: number) => boolean>> = {
  b: atBoundary,
  B: (text, at) => !atBoundary(text, at),
  A: (_text, at) => at === 0,
  Z: (text, at) => at === text.length,
};

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
    this.#take("?"); // lazy: the same language
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

  #folded(test: (code: number) => boolean): (code: number) => boolean {
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

  /** What follows a [. */
  #set(): (code: number) => boolean {
    const negative = this.#take("^");
    const tests: ((code: number) => boolean)[] = [];
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

  #setItem(): number | ((code: number) => boolean) {
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

/** Text as a pattern that matches it alone. */
export function escapePattern(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
