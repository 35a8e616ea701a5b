/** What a graph costs: the steps of its program, with the arithmetic and the memory traffic of each. */
import { type Cost, costOf } from "@tiedlora/kernels";
import { refuse } from "@tiedlora/kernels/arguments";
import { isOp } from "./node.ts";
import { planFor, type Update } from "./plan.ts";
import { hostRuntime, type Runtime } from "./runtime.ts";
import type { Tensor } from "./tensor.ts";

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
    const total = row(
      `${this.steps.length} steps`,
      this.flops,
      this.bytes,
      `${mega(this.tempBytes).trim()} MB of temporaries`,
    );
    return [...lines, total].join("\n");
  }
}

const mega = (n: number): string => (n / 1e6).toFixed(3).padStart(11);

/** What is to be computed together: the arguments of `submit`. */
export interface Traced {
  readonly device: Runtime;
  readonly tensors: readonly Tensor[];
  readonly updates: readonly Update[];
}

/**
 * The kernels that would compute `what`, a tensor or a whole training step: `console.log(String(explain(loss)))`,
 * or `optimizer.trace(loss)`. Computes nothing; the program is compiled and kept, as if it were run.
 */
export function explain(what: Tensor | Traced): Explanation {
  const given = what as Partial<Tensor & Traced> | null | undefined;
  if (!given?.node && !given?.tensors)
    refuse("explain", what, "tensor or step", "one, e.g. optimizer.trace(loss)");
  const { device, tensors, updates } =
    "tensors" in what ? what : { device: what.device ?? hostRuntime(), tensors: [what], updates: [] };
  const roots = tensors.map((t) => t.node).filter((node) => !isOp(node, "buffer") && !isOp(node, "data"));
  const { program, rules } = planFor(device, roots, updates);
  const temps = program.buffers.filter(({ kind }) => kind === "temp");
  const steps = program.steps.map((step, i) => ({ ...costOf(step), rules: rules[i]! }));
  return new Explanation(
    steps,
    temps.reduce((sum, { bytes }) => sum + bytes, 0),
  );
}
