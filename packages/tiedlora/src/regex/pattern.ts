/**
 * Regular expressions from files, matched in time linear in the text (quadratic with look-aheads) by Thompson's simulation (1968):
 * a config must not be able to hang its reader, as it could with a backtracking engine. The syntax is that which Python's re and
 * JavaScript have in common, plus (?P<name>...), \A, \Z and a leading (?i). Back-references and look-behind are not supported.
 */
import { Match } from "./match.ts";
import { parsePattern } from "./parser.ts";
import { emit, type Instruction, MAX_INSTRUCTIONS } from "./program.ts";
import { PatternError } from "./syntax.ts";

/**
 * A limit on the total work for the patterns of one file. Matching one pattern is linear in the text, or quadratic with
 * look-aheads, but a file can hold many patterns of many instructions, each of which is matched with every module of a model.
 */
export class PatternWork {
  #instructions = 0;
  #steps = 0;

  /** Counts a compiled pattern. Throws PatternError above the limit. */
  compiled(source: string, instructions: number): void {
    this.#instructions += instructions;
    if (this.#instructions > 10 * MAX_INSTRUCTIONS)
      throw new PatternError(source, 0, "the patterns of this file are too large together");
  }

  /** Counts steps of matching. Throws PatternError above the limit, which is about half a second of work. */
  step(source: string, count: number): void {
    this.#steps += count;
    if (this.#steps > 5e6)
      throw new PatternError(source, 0, "matching it with the model's modules takes too long");
  }
}

/** A compiled regular expression; `compilePattern` makes one. */
export class Pattern {
  readonly source: string;
  readonly #program: readonly Instruction[];
  readonly #work: PatternWork;
  /** Results by text, because each plan for a model matches the same paths again. */
  readonly #known = new Map<string, boolean>();

  constructor(source: string, work: PatternWork) {
    this.source = source;
    this.#work = work;
    const { program, instructions } = emit(parsePattern(source), source);
    work.compiled(source, instructions);
    this.#program = program;
  }

  /** Whether the whole text matches, as with Python's re.fullmatch. Throws PatternError if matching takes too long. */
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

/** Compiles a pattern. `work`: the limit that the patterns of one file share. Throws PatternError for unsupported syntax. */
export function compilePattern(source: string, work: PatternWork = new PatternWork()): Pattern {
  return new Pattern(source, work);
}

export function isPattern(value: unknown): value is Pattern {
  return value instanceof Pattern;
}
