/** A program as a list of calls of functions, and a module of those that no earlier program had. */
import type { LastingCache, LibraryCall, Operand, Program, Step } from "@tiedlora/kernels";
import { buffersIfAlike, buffersOf, sketchOf } from "@tiedlora/kernels/alike";
import { at } from "../assert.ts";
import { Module } from "./assembler.ts";
import { planAttention } from "./attention/attention.ts";
import { planAttentionGrad } from "./attention/gradient.ts";
import { planGather, planScatterAdd } from "./indexing.ts";
import { type Kept, keptOf, keyOf, restored } from "./kept.ts";
import { type Code, CodeModule, type Library } from "./library.ts";
import { planLoop } from "./loops/kernel.ts";
import { splitReduction } from "./loops/split.ts";
import type { Call, CompiledProgram, GeneratedCode, ProgramOptions } from "./compiled.ts";
import { type Tile, tileColumns } from "./matmul/gemm.ts";
import { type GemmImports, importGemm } from "./matmul/imports.ts";
import { planMatmul } from "./matmul/matmul.ts";
import { isQuantized, readsQuantized } from "./matmul/quantized.ts";
import type { CodegenOptions, StepFunction } from "./step.ts";

/** Attention with fewer queries than this does not use the attention kernel. */
const MIN_QUERIES = 4;

/** Whether there is a kernel for `call`; core lowers calls without one to simpler steps. */
export function accelerates(call: LibraryCall): boolean {
  const operands = [...call.inputs, ...call.outputs];
  const stored = call.name === "matmul" ? (call.params.epilogue?.stores ?? []).map((s) => s.to) : [];
  const half = (o: Operand | undefined): boolean => o?.dtype === "f16" || o?.dtype === "bf16";
  if ([...operands, ...stored].some((o) => o.dtype === "f64")) return false;
  if (operands.some((o) => o.view.valid?.some((range) => range !== null))) return false;
  switch (call.name) {
    case "matmul":
      return call.inputs.every((o, i) => {
        if (isQuantized(o))
          return i % 2 === 1 && readsQuantized(o, call.params.k[i >> 1] ?? 0, call.params.n);
        return o.dtype === "f32" || half(o);
      });
    case "gather":
      return true;
    case "scatterAdd":
      return !half(call.outputs[0]); // sums are kept in the output
    case "attention":
    case "attentionGrad":
      // packing the keys does not pay off for a few queries: core uses two products and a softmax instead
      return (
        call.params.q >= MIN_QUERIES &&
        [...call.inputs, ...call.outputs].every((o) => o.dtype === "f32" || half(o))
      );
  }
}

/**
 * Compiles a program. Functions that `library` has are not compiled again, and those that are new are added to it. A program that
 * `cache` has is taken from there.
 */
export function compileProgram(
  program: Program,
  options: ProgramOptions,
  library: Library,
  cache?: LastingCache,
): CompiledProgram {
  const { steps, temps, bufferCount } = divided(program);
  const buffersAt = 8 * program.scalars;
  const frameBytes = Math.ceil((buffersAt + 4 * bufferCount) / 8) * 8;
  const rest = { steps, buffersAt, frameBytes, temps };
  if (cache === undefined) return { ...generated(steps, buffersAt, options, library), ...rest };
  const key = keyOf(program, options);
  const known = restored(cache.find("code", key) as Kept | undefined, library);
  if (known !== null) return { ...known, ...rest };
  const made = generated(steps, buffersAt, options, library);
  cache.keep("code", key, keptOf(made));
  return { ...made, ...rest };
}

/** The program's steps, with long reductions split, the sizes of its temporaries by buffer number, and the number of its buffers. */
function divided(program: Program): {
  steps: readonly Step[];
  temps: ReadonlyMap<number, number>;
  bufferCount: number;
} {
  const temps = new Map<number, number>();
  program.buffers.forEach((spec, i) => {
    if (spec.kind === "temp") temps.set(i, spec.bytes);
  });
  let bufferCount = program.buffers.length;
  const steps = program.steps.flatMap((step): readonly Step[] => {
    const split = step.type === "loop" ? splitReduction(step, bufferCount) : null;
    if (split === null) return [step];
    for (const bytes of split.temps) temps.set(bufferCount++, bytes);
    return split.kernels;
  });
  return { steps, temps, bufferCount };
}

function generated(
  steps: readonly Step[],
  buffersAt: number,
  options: ProgramOptions,
  library: Library,
): GeneratedCode {
  const builder = new ProgramBuilder(options, library, buffersAt);
  try {
    const calls = steps.map((step) => builder.add(step));
    const { functions, scratchBytes, cost } = builder;
    return { functions, module: builder.finish(options.shared), calls, scratchBytes, cost };
  } catch (cause) {
    library.drop(builder.code);
    throw cause;
  }
}

interface Planned {
  readonly fn: number;
  /** The step that it was planned for, and how it is called. */
  readonly of: Step;
  readonly step: StepFunction;
  /** The numbers that its function reads from its arguments. */
  readonly numbers: readonly number[];
  /** The buffers of that step, in order of appearance. */
  readonly order: readonly number[];
}

/** Plans each distinct step once: twelve equal layers share their kernels. */
class ProgramBuilder {
  readonly code: CodeModule = new CodeModule();
  readonly functions: Code[] = [];
  scratchBytes = 0;
  cost = 0;
  readonly #module: Module = new Module();
  readonly #library: Library;
  readonly #options: CodegenOptions & { readonly tile: Tile; readonly gemm: GemmImports };
  readonly #buffersAt: number;
  readonly #planned = new Map<number, Planned[]>(); // by sketch

  constructor({ threads, tile }: ProgramOptions, library: Library, buffersAt: number) {
    // tiles of more columns are chosen for vectors of 256 bits
    const wide = tileColumns(tile) > 8;
    this.#options = { threads, tile, fma: tile.fma, wide, gemm: importGemm(this.#module) };
    this.#library = library;
    this.#buffersAt = buffersAt;
  }

  add(step: Step): Call {
    const { entry, order } = this.#find(step);
    const { fn, step: planned, numbers, order: original } = entry;
    this.scratchBytes = Math.max(this.scratchBytes, planned.scratchBytes);
    this.cost += planned.cost;
    const addresses = planned.buffers.map(
      (buffer) => this.#buffersAt + 4 * at(order, original.indexOf(buffer), "buffer of a step"),
    );
    return { fn, chunks: planned.chunks, addresses, numbers };
  }

  /** What was planned for `step` or for one that differs in buffers alone; and the buffers of `step`, in order of appearance. */
  #find(step: Step): { readonly entry: Planned; readonly order: readonly number[] } {
    const sketch = sketchOf(step);
    let candidates = this.#planned.get(sketch);
    if (candidates === undefined) this.#planned.set(sketch, (candidates = []));
    for (const entry of candidates) {
      const order = buffersIfAlike(entry.of, entry.order, step);
      if (order !== null) return { entry, order };
    }
    const entry = this.#plan(step, buffersOf(step));
    candidates.push(entry);
    return { entry, order: entry.order };
  }

  /** The module of new functions. */
  finish(shared: boolean): CodeModule {
    if (this.code.size > 0) this.code.bytes = this.#module.bytes({ shared });
    return this.code;
  }

  #plan(step: Step, order: readonly number[]): Planned {
    const planned = planStep(step, this.#options);
    const { values } = planned.numbers;
    const code = this.#library.find(planned, values, this.code, this.#module);
    const fn = this.functions.push(code) - 1;
    return { fn, of: step, step: planned, numbers: code.isGeneral ? values : [], order };
  }
}

function planStep(
  step: Step,
  options: CodegenOptions & { readonly tile: Tile; readonly gemm: GemmImports },
): StepFunction {
  if (step.type === "loop") return planLoop(step, options);
  if (!accelerates(step)) {
    throw new Error(
      `the CPU backend has no kernel for this ${step.name} call; core lowers what accelerates() refuses`,
    );
  }
  switch (step.name) {
    case "matmul":
      return planMatmul(step, options);
    case "attention":
      return planAttention(step, options);
    case "attentionGrad":
      return planAttentionGrad(step, options);
    case "gather":
      return planGather(step, options);
    case "scatterAdd":
      return planScatterAdd(step, options);
  }
}
