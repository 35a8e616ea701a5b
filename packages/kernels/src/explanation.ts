/** The cost of a program: its steps, with the arithmetic operations and memory traffic of each. */
import type { Cost } from "./cost.ts";

/** One step of a program. */
export interface StepCost extends Cost {
  /** The fusion rules that produced the step. */
  readonly rules: readonly string[];
}

/** A program's steps with their costs, and the totals. `toString` formats them as a table. */
export class Explanation {
  /** In the order in which they run. */
  readonly steps: readonly StepCost[];
  /** Bytes of memory for all temporaries; those that are never alive together share memory, which counts once. */
  readonly tempBytes: number;

  constructor(steps: readonly StepCost[], tempBytes: number) {
    this.steps = steps;
    this.tempBytes = tempBytes;
  }

  /** Arithmetic operations of all steps. */
  get flops(): number {
    return this.steps.reduce((sum, step) => sum + step.flops, 0);
  }
  /** Bytes that all steps read and write at least. */
  get bytes(): number {
    return this.steps.reduce((sum, step) => sum + step.bytes, 0);
  }

  /** A table with one line per step and a line of totals. */
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
