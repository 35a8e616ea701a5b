/** What a program costs: its steps, with the arithmetic and the memory traffic of each. */
import type { Cost } from "./cost.ts";

/** One step of a program. */
export interface StepCost extends Cost {
  /** The fusion rules that shaped it. */
  readonly rules: readonly string[];
}

/** A program's steps and their sums. As a string: a table. */
export class Explanation {
  /** In the order in which they run. */
  readonly steps: readonly StepCost[];
  /** Bytes of all temporaries together, as they share memory. */
  readonly tempBytes: number;

  constructor(steps: readonly StepCost[], tempBytes: number) {
    this.steps = steps;
    this.tempBytes = tempBytes;
  }

  /** Arithmetic operations of all steps. */
  get flops(): number {
    return this.steps.reduce((sum, step) => sum + step.flops, 0);
  }
  /** Bytes that all steps read and write. */
  get bytes(): number {
    return this.steps.reduce((sum, step) => sum + step.bytes, 0);
  }

  /** A table, a line for each step. */
  toString(): string {
    const width = Math.max(8, ...this.steps.map(({ name }) => name.length));
    const row = (name: string, flops: number, bytes: number, note: string): string =>
      `${name.padEnd(width)} ${mega(flops)} MFLOP ${mega(bytes)} MB  ${note}`.trimEnd();
    const lines = this.steps.map(({ name, flops, bytes, rules }) => row(name, flops, bytes, rules.join(" ")));
    const temporaries = `${mega(this.tempBytes).trim()} MB of temporaries`;
    const total = row(`${this.steps.length} steps`, this.flops, this.bytes, temporaries);
    return [...lines, total].join("\n");
  }
}

const mega = (n: number): string => (n / 1e6).toFixed(3).padStart(11);
