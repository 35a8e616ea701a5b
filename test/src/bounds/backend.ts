/**
 * The yardstick: a backend that computes in float64 and stores with every number a bound: how far the result of a correct
 * backend may be from it. Comparisons with it need no tolerances: a result outside its bound is an error.
 */
import type {
  Backend,
  BackendMemory,
  Caps,
  DeviceBuffer,
  DType,
  Executable,
  LibraryCall,
  Program,
} from "@tiedlora/core";
import { atScalars } from "@tiedlora/core";
import { Arithmetic } from "./arithmetic.ts";
import { runLibrary } from "./library.ts";
import { runLoop, type Scope } from "./loop.ts";
import { BoundsBuffer } from "./memory.ts";
import { type Precision, PRECISION } from "./precision.ts";

/** A backend that computes error bounds: how far a correct backend may be from the exact result. */
export class BoundsBackend implements Backend {
  readonly name = "bounds";
  readonly caps: Caps = {
    dtypes: new Set<DType>(["f32", "f16", "bf16", "f64", "i32", "u32", "bool"]),
    maxOperands: 64,
    maxBufferBytes: 2 ** 32,
  };
  /** The error bounds of the elements that were read last; Infinity where any value is allowed. */
  lastErrors: Float64Array | null = null;
  readonly #arithmetic: Arithmetic;
  readonly #lowerAll: boolean;
  #live = 0;
  #peak = 0;

  /** With `lowerAll`, library calls are lowered to loop kernels, and the bounds are those of the loops. */
  constructor(options: { readonly precision?: Precision; readonly lowerAll?: boolean } = {}) {
    this.#arithmetic = new Arithmetic(options.precision ?? PRECISION);
    this.#lowerAll = options.lowerAll ?? false;
  }

  alloc(bytes: number): DeviceBuffer {
    this.#count(bytes);
    return this.#buffer(bytes);
  }

  accelerates(_call: LibraryCall): boolean {
    return !this.#lowerAll;
  }

  compile(program: Program): Executable {
    const tempBytes = program.buffers.reduce((sum, b) => sum + (b.kind === "temp" ? b.bytes : 0), 0);
    this.#count(tempBytes);
    return {
      tempBytes,
      run: (inputs, outputs, scalars) => {
        const queue = { input: [...inputs], output: [...outputs] };
        const buffers = program.buffers.map((spec) =>
          spec.kind === "temp" ? this.#buffer(spec.bytes) : (queue[spec.kind].shift() as BoundsBuffer),
        );
        this.#run(program, buffers, scalars);
      },
      free: () => this.#count(-tempBytes),
    };
  }

  sync(): Promise<void> {
    return Promise.resolve();
  }

  memory(): BackendMemory {
    return { liveBytes: this.#live, peakBytes: this.#peak };
  }

  close(): void {}

  #run(program: Program, buffers: readonly BoundsBuffer[], scalars: Float64Array): void {
    const shared = { arithmetic: this.#arithmetic, buffers, scalars };
    for (const step of program.steps.map((given) => atScalars(given, scalars))) {
      if (step.type === "library") runLibrary(step, { ...shared, outer: [], inner: [] });
      else runLoop(step, { ...shared, outer: step.outer, inner: step.inner } satisfies Scope);
    }
  }

  #buffer(bytes: number): BoundsBuffer {
    return new BoundsBuffer(
      bytes,
      (errors) => {
        this.lastErrors = errors;
      },
      (freed) => this.#count(-freed),
    );
  }

  #count(bytes: number): void {
    this.#live += bytes;
    this.#peak = Math.max(this.#peak, this.#live);
  }
}
