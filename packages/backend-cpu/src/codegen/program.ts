/** A program as one WebAssembly module and a list of calls into it. */
import { type LibraryCall, mapBuffers, type Operand, type Program, type Step } from "@tiedlora/kernels";
import { at } from "../assert.ts";
import { Module } from "./assembler.ts";
import { compileAttention } from "./attention/attention.ts";
import { compileAttentionGrad } from "./attention/gradient.ts";
import { compileGather, compileScatterAdd } from "./indexing.ts";
import { compileLoop, planLoop } from "./loops/kernel.ts";
import { splitReduction } from "./loops/split.ts";
import type { Tile } from "./matmul/gemm.ts";
import { type GemmImports, importGemm } from "./matmul/imports.ts";
import { compileMatmul } from "./matmul/matmul.ts";
import { isQuantized, readsQuantized } from "./matmul/quantized.ts";
import type { CodegenOptions, StepFunction } from "./step.ts";

export interface ProgramOptions {
  readonly threads: number;
  readonly shared: boolean;
  readonly tile: Tile;
}

/**
 * One call of exported function number `fn`, for each of `chunks` chunks; `args` has, for each argument, the offset in the
 * frame of its buffer's address, in bytes.
 */
export interface Call {
  readonly fn: number;
  readonly chunks: number;
  readonly args: readonly number[];
}

export interface CompiledProgram {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly calls: readonly Call[];
  /** The step that each call executes. */
  readonly steps: readonly Step[];
  /** The frame holds the address of each buffer (those of `temps` last), then the scalars as f64. */
  readonly bufferCount: number;
  readonly scalarsAt: number;
  readonly frameBytes: number;
  /** Sizes of temporaries by buffer number: the program's, and partial results of split reductions. */
  readonly temps: ReadonlyMap<number, number>;
  readonly scratchBytes: number;
  /** Estimated run time on one thread, nanoseconds. */
  readonly cost: number;
}

/** Attention with fewer queries than this does not use the attention kernel. */
const MIN_QUERIES = 4;

/** The export name of a program's function number `i`. */
export const exportName = (i: number): string => `k${i}`;

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

export function compileProgram(program: Program, options: ProgramOptions): CompiledProgram {
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
  const scalarsAt = Math.ceil((4 * bufferCount) / 8) * 8;
  const builder = new ProgramBuilder({ ...options, fma: options.tile.fma, scalarsAt });
  const calls = steps.map((step) => builder.add(step));
  return {
    bytes: builder.module.bytes({ shared: options.shared }),
    calls,
    steps,
    bufferCount,
    scalarsAt,
    frameBytes: scalarsAt + 8 * program.scalars,
    temps,
    scratchBytes: builder.scratchBytes,
    cost: builder.cost,
  };
}

interface Compiled {
  readonly fn: number;
  readonly step: StepFunction;
  /** The buffers of the step it was compiled for, in order of appearance. */
  readonly order: readonly number[];
}

/** Compiles each distinct step once: twelve equal layers share their kernels. */
class ProgramBuilder {
  readonly module: Module = new Module();
  scratchBytes = 0;
  cost = 0;
  readonly #options: CodegenOptions & ProgramOptions;
  readonly #gemm: GemmImports;
  readonly #compiled = new Map<string, Compiled>();

  constructor(options: CodegenOptions & ProgramOptions) {
    this.#options = options;
    this.#gemm = importGemm(this.module);
  }

  add(step: Step): Call {
    const { key, order } = structuralKey(step);
    let entry = this.#compiled.get(key);
    if (entry === undefined) {
      const fn = this.#compiled.size;
      entry = { fn, step: this.#compile(step, exportName(fn)), order };
      this.#compiled.set(key, entry);
    }
    const { fn, step: compiled, order: original } = entry;
    this.scratchBytes = Math.max(this.scratchBytes, compiled.scratchBytes);
    this.cost += compiled.cost;
    const args = compiled.buffers.map(
      (buffer) => 4 * at(order, original.indexOf(buffer), "buffer of a step"),
    );
    return { fn, chunks: compiled.chunks, args };
  }

  #compile(step: Step, name: string): StepFunction {
    const { module } = this;
    const [options, gemm] = [this.#options, this.#gemm];
    if (step.type === "loop") return compileLoop(module, name, planLoop(step, options.threads), options);
    if (!accelerates(step)) {
      throw new Error(
        `the CPU backend has no kernel for this ${step.name} call; core lowers what accelerates() refuses`,
      );
    }
    switch (step.name) {
      case "matmul":
        return compileMatmul(module, name, step, { ...options, gemm });
      case "attention":
        return compileAttention(module, name, step, { ...options, gemm });
      case "attentionGrad":
        return compileAttentionGrad(module, name, step, { ...options, gemm });
      case "gather":
        return compileGather(module, name, step, options);
      case "scatterAdd":
        return compileScatterAdd(module, name, step, options);
    }
  }
}

/** A string that is equal for steps that differ only in their buffers, and the buffers of `step` in order of appearance. */
function structuralKey(step: Step): { readonly key: string; readonly order: readonly number[] } {
  const order: number[] = [];
  const numbered = mapBuffers(step, (buffer) => {
    const known = order.indexOf(buffer);
    return known >= 0 ? known : order.push(buffer) - 1;
  });
  const body = step.type === "loop" ? step.body : step.name === "matmul" ? step.params.epilogue?.body : [];
  // JSON has neither infinities nor a negative zero
  const special = (body ?? []).flatMap((instr, i) =>
    instr.op !== "const" || (Number.isFinite(instr.value) && !Object.is(instr.value, -0))
      ? []
      : `${i} ${Object.is(instr.value, -0) ? "-0" : instr.value}`,
  );
  return { key: JSON.stringify(numbered) + special.join(), order };
}
