/** What the compilation of a program gives: calls of functions, and a module of those that are new. */
import type { Step } from "@tiedlora/kernels";
import type { Code, CodeModule } from "./library.ts";
import type { Tile } from "./matmul/gemm.ts";

export interface ProgramOptions {
  readonly threads: number;
  readonly shared: boolean;
  readonly tile: Tile;
}

/**
 * One call of function number `fn` of the program, for each of `chunks` chunks. Its arguments are, for each buffer, the offset in the frame of
 * its address, in bytes, and then the numbers of the step if the function serves all sizes.
 */
export interface Call {
  readonly fn: number;
  readonly chunks: number;
  readonly addresses: readonly number[];
  /** Equal steps share them. */
  readonly numbers: readonly number[];
}

/** The part of a compiled program that is kept for later processes. */
export interface GeneratedCode {
  /** The functions that calls refer to; those in `module` are new. */
  readonly functions: readonly Code[];
  readonly module: CodeModule;
  readonly calls: readonly Call[];
  readonly scratchBytes: number;
  /** Estimated run time on one thread, nanoseconds. */
  readonly cost: number;
}

export interface CompiledProgram extends GeneratedCode {
  /** The step that each call executes. */
  readonly steps: readonly Step[];
  /** The frame holds the scalars as f64, then the address of each buffer (those of `temps` last). */
  readonly buffersAt: number;
  readonly frameBytes: number;
  /** Sizes of temporaries by buffer number: the program's, and partial results of split reductions. */
  readonly temps: ReadonlyMap<number, number>;
}
