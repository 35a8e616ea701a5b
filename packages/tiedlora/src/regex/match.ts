/**
 * Thompson's simulation (1968): follows all paths through a program at once, in time linear in the length of the text, or quadratic
 * with look-aheads.
 */
import type { Instruction } from "./program.ts";

/** One text being matched. */
export class Match {
  readonly #text: string;
  readonly #step: (count: number) => void;
  /** Results of look-aheads, by look-ahead and position: each is computed once, however look-aheads are nested. */
  readonly #looks = new Map<number, boolean>();

  constructor(text: string, step: (count: number) => void) {
    this.#text = text;
    this.#step = step;
  }

  /**
   * Whether `program` matches the text from `start`: up to its end if `full`, otherwise a prefix of the rest. Keeps the set of all
   * positions in the program that the text read so far can lead to.
   */
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

  /** Adds `first` and all positions that can be reached from it without reading a character. */
  #enter(program: readonly Instruction[], set: Set<number>, first: number, at: number): void {
    const stack = [first];
    while (stack.length > 0) {
      const pc = stack.pop()!;
      this.#step(1);
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
