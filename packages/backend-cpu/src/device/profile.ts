/**
 * Times every step that runs during profiling, on the calling thread only: shows where the time goes, not how long programs
 * take on all threads.
 */
import type { DType, LibraryCall, LoopKernel, Step } from "@tiedlora/kernels";

/** The total time that equal kernels took on one thread. */
export interface KernelTime {
  readonly label: string;
  readonly calls: number;
  readonly milliseconds: number;
}

export class Recorder {
  readonly #times = new Map<string, { calls: number; milliseconds: number }>();

  add(step: Step, milliseconds: number): void {
    const label = describe(step);
    const time = this.#times.get(label) ?? { calls: 0, milliseconds: 0 };
    time.calls++;
    time.milliseconds += milliseconds;
    this.#times.set(label, time);
  }

  /** All times, the longest first. */
  finish(): KernelTime[] {
    return [...this.#times]
      .map(([label, time]) => ({ label, ...time }))
      .sort((a, b) => b.milliseconds - a.milliseconds);
  }
}

/** A kernel in one line: what it does, over which shape, on which types. */
function describe(step: Step): string {
  return step.type === "loop" ? describeLoop(step) : describeCall(step);
}

function describeLoop({ outer, inner, body, stores }: LoopKernel): string {
  const space = inner.length > 0 ? `${outer.join("x")} | ${inner.join("x")}` : outer.join("x");
  const ops = body.map((instr) => (instr.op === "reduce" ? `reduce ${instr.kind}` : instr.op));
  const counted = new Map<string, number>();
  for (const op of ops) if (op !== "const") counted.set(op, (counted.get(op) ?? 0) + 1);
  const list = [...counted].map(([op, n]) => (n > 1 ? `${n} ${op}` : op)).join(", ");
  return `loop [${space}] ${list}; ${stores.length} stored`;
}

function describeCall(call: LibraryCall): string {
  const types = (dtypes: readonly DType[]): string => [...new Set(dtypes)].join(", ");
  const inputs = types(call.inputs.map((operand) => operand.dtype));
  switch (call.name) {
    case "matmul": {
      const { batch, m, n, k, epilogue } = call.params;
      const kind = call.inputs.map(({ view }) => (view.strides.at(-1) === 1 ? "N" : "T")).join("");
      const size = [...batch, `${m}x${k.join("+")}x${n}`].join(" of ");
      const after = epilogue === undefined ? "" : `, then ${epilogue.body.length} ops`;
      return `matmul ${size} ${kind} ${inputs}${after}`;
    }
    case "attention":
    case "attentionGrad": {
      const { batch, heads, kvHeads, q, kv, d, causal } = call.params;
      return `${call.name} ${batch}x${heads}/${kvHeads} ${q}x${kv}x${d}${causal ? " causal" : ""} ${inputs}`;
    }
    case "gather":
    case "scatterAdd": {
      const { rows, cols, count } = call.params;
      return `${call.name} ${count} of ${rows}x${cols} ${inputs}`;
    }
  }
}
