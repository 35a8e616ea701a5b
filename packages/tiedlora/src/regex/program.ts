/** A pattern as a program for Thompson's simulation: the tests at each position, and the instructions that follow. */
import { type Ast, type CharTest, PatternError, type PositionTest } from "./syntax.ts";

/** One instruction of a program. */
export type Instruction =
  | { readonly op: "char"; readonly test: CharTest }
  | { readonly op: "split"; readonly to: readonly number[] }
  | { readonly op: "jump"; readonly to: number }
  | { readonly op: "assert"; readonly test: PositionTest }
  | {
      readonly op: "look";
      /** The number of this look-ahead among those of the pattern. */
      readonly id: number;
      readonly program: readonly Instruction[];
      readonly negative: boolean;
    }
  | { readonly op: "match" };

/** The largest number of instructions of one pattern, including the programs of its look-aheads. */
export const MAX_INSTRUCTIONS = 20_000;

/** Returns the program of a pattern, and the number of its instructions and its look-aheads'. Throws PatternError if too large. */
export function emit(ast: Ast, source: string): { program: Instruction[]; instructions: number } {
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
    if (++this.#visits > 10 * MAX_INSTRUCTIONS) this.#tooLarge(); // an empty body, repeated, adds no instruction but takes time
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
