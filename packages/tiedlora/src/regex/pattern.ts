/**
 * Regular expressions from files, matched in time linear in the text: a config must not be able to hang its reader, as a
 * backtracking engine lets it. The syntax is what Python's re and JavaScript have in common, plus (?P<name>...), \A, \Z
 * and a leading (?i); back-references and look-behind are refused. Thompson's simulation (1968).
 */
import { Match } from "./match.ts";
import { parsePattern } from "./parser.ts";
import { emit, type Instruction, MAX_INSTRUCTIONS } from "./program.ts";
import { PatternError } from "./syntax.ts";

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

  /** Counts what was done to match; about half a second is too much. */
  step(source: string, count: number): void {
    this.#steps += count;
    if (this.#steps > 5e6)
      throw new PatternError(source, 0, "matching it with the model's modules takes too long");
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
    const { program, instructions } = emit(parsePattern(source), source);
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
