/** Backends with one planted fault each, to show that the suite finds it. */
import {
  type Backend,
  type Caps,
  type DeviceBuffer,
  type Executable,
  type Instr,
  type LoopKernel,
  type Program,
  ReferenceBackend,
  type Step,
} from "@tiedlora/core";

/** The reference backend, which changes every program before it compiles it. */
class FaultyBackend implements Backend {
  readonly name: string;
  readonly caps: Caps;
  readonly #inner = new ReferenceBackend();
  readonly #change: (step: Step) => Step;

  constructor(name: string, change: (step: Step) => Step) {
    this.name = name;
    this.caps = this.#inner.caps;
    this.#change = change;
  }

  alloc(bytes: number): DeviceBuffer {
    return this.#inner.alloc(bytes);
  }
  accelerates(): boolean {
    return true;
  }
  compile(program: Program): Executable {
    return this.#inner.compile({ ...program, steps: program.steps.map(this.#change) });
  }
  sync(): Promise<void> {
    return this.#inner.sync();
  }
  memory(): ReturnType<Backend["memory"]> {
    return this.#inner.memory();
  }
  close(): void {
    this.#inner.close();
  }
}

/** Changes the instructions of loop kernels. */
const inLoops =
  (change: (instr: Instr, kernel: LoopKernel) => Instr) =>
  (step: Step): Step =>
    step.type === "loop" ? { ...step, body: step.body.map((instr) => change(instr, step)) } : step;

/** Faults that backends have had or could have. The kernel cases alone must find each. */
export const FAULTS: { readonly [name: string]: (step: Step) => Step } = {
  "padding is ignored at loads": inLoops((instr) =>
    instr.op === "load" && instr.from.view.valid
      ? {
          ...instr,
          from: { ...instr.from, view: { ...instr.from.view, valid: instr.from.view.valid.map(() => null) } },
        }
      : instr,
  ),
  "the last element of a padded range is lost": inLoops((instr) =>
    instr.op === "load" && instr.from.view.valid
      ? {
          ...instr,
          from: {
            ...instr.from,
            view: {
              ...instr.from.view,
              valid: instr.from.view.valid.map((r) => r && ([r[0], r[1] - 1] as const)),
            },
          },
        }
      : instr,
  ),
  "integer mod is a bitwise and": inLoops((instr) =>
    instr.op === "mod" && instr.dtype === "i32" ? { ...instr, op: "and" } : instr,
  ),
  "u32 shr is a shl": inLoops((instr) =>
    instr.op === "shr" && instr.dtype === "u32" ? { ...instr, op: "shl" } : instr,
  ),
  "le is lt": inLoops((instr) => (instr.op === "le" ? { ...instr, op: "lt" } : instr)),
  "a product is folded by max": inLoops((instr) =>
    instr.op === "reduce" && instr.kind === "prod" ? { ...instr, kind: "max" } : instr,
  ),
  "rounding to bf16 is left out": inLoops((instr) =>
    instr.op === "cast" && instr.to === "bf16" ? { ...instr, to: "f32" } : instr,
  ),
  "rounding to f16 is that to bf16": inLoops((instr) =>
    instr.op === "cast" && instr.to === "f16" ? { ...instr, to: "bf16" } : instr,
  ),
  "scalars are those of slot 0": inLoops((instr) => (instr.op === "scalar" ? { ...instr, slot: 0 } : instr)),
  "the last store is forgotten": (step) =>
    step.type === "loop" && step.stores.length > 1 ? { ...step, stores: step.stores.slice(0, -1) } : step,
  "a matmul forgets its last term": (step) =>
    step.type === "library" && step.name === "matmul" && step.params.k.length > 1
      ? {
          ...step,
          params: { ...step.params, k: step.params.k.slice(0, -1) },
          inputs: step.inputs.slice(0, -2),
        }
      : step,
  "attention is not causal": (step) =>
    step.type === "library" && (step.name === "attention" || step.name === "attentionGrad")
      ? { ...step, params: { ...step.params, causal: false } }
      : step,
  "attention's scale is off by a tenth of a percent": (step) =>
    step.type === "library" && step.name === "attention"
      ? { ...step, params: { ...step.params, scale: step.params.scale * 1.001 } }
      : step,
};

export function faultyBackend(name: string): Backend {
  return new FaultyBackend(name, FAULTS[name]!);
}
