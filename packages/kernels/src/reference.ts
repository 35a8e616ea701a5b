/**
 * The specification: an interpreter of the kernel IR in float64, which is itself a backend. It is written to be read
 * and compared against, not to be fast. Its parts: `reference/arithmetic.ts` (the meaning of each operation),
 * `reference/loop.ts` (loop kernels), `reference/library.ts` (matmul, attention, gather, scatterAdd).
 */
import type { Backend, BackendMemory, Caps, DeviceBuffer, Executable } from "./backend.ts";
import type { DType } from "./dtype.ts";
import { atScalars, type LibraryCall, type Program, type Step } from "./kernel.ts";
import { runLibrary } from "./reference/library.ts";
import { runLoop } from "./reference/loop.ts";

/** Runs one step of a program on the raw bytes of its buffers; `scalars` are the run-time numbers, by slot. */
export function runStep(moving: Step, buffers: readonly ArrayBuffer[], scalars: ArrayLike<number>): void {
  const step = atScalars(moving, scalars);
  if (step.type === "loop") runLoop(step, buffers, scalars);
  else runLibrary(step, buffers, scalars);
}

class ReferenceBuffer implements DeviceBuffer {
  readonly bytes: number;
  memory: ArrayBuffer;
  readonly #owner: ReferenceBackend;
  #freed = false;

  constructor(bytes: number, owner: ReferenceBackend) {
    this.bytes = bytes;
    this.memory = new ArrayBuffer(bytes);
    this.#owner = owner;
    owner.count(bytes);
  }

  write(data: ArrayBufferView, offset = 0): void {
    new Uint8Array(this.memory, offset, data.byteLength).set(
      new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
    );
  }

  read(offset = 0, bytes: number = this.bytes - offset): Promise<ArrayBuffer> {
    return Promise.resolve(this.memory.slice(offset, offset + bytes));
  }

  free(): void {
    if (this.#freed) throw new Error("DeviceBuffer.free: this buffer was freed before; free it once");
    this.#freed = true;
    this.memory = new ArrayBuffer(0);
    this.#owner.count(-this.bytes);
  }
}

/** The float64 interpreter as a backend. `lowerAll: true` makes core lower every library call to loops. */
export class ReferenceBackend implements Backend {
  readonly name = "reference";
  readonly caps: Caps = {
    dtypes: new Set<DType>(["f32", "f16", "bf16", "f64", "i32", "u32", "bool"]),
    maxOperands: 64,
    maxBufferBytes: 2 ** 32,
    slides: 2 ** 32,
  };
  readonly #lowerAll: boolean;
  #live = 0;
  #peak = 0;

  constructor(options: { readonly lowerAll?: boolean } = {}) {
    this.#lowerAll = options.lowerAll ?? false;
  }

  /** Adds `bytes` (negative when freed) to the memory in use. Called by buffers and executables. */
  count(bytes: number): void {
    this.#live += bytes;
    this.#peak = Math.max(this.#peak, this.#live);
  }

  /** Allocates host memory and counts it in `memory()`. */
  alloc(bytes: number): DeviceBuffer {
    return new ReferenceBuffer(bytes, this);
  }

  accelerates(_call: LibraryCall): boolean {
    return !this.#lowerAll;
  }

  /** Allocates the program's temporaries; the interpreter runs the program as it is. */
  compile(program: Program): Executable {
    const tempBytes = program.buffers.reduce((sum, b) => sum + (b.kind === "temp" ? b.bytes : 0), 0);
    const temps = program.buffers.map((b) => new ArrayBuffer(b.kind === "temp" ? b.bytes : 0));
    this.count(tempBytes);
    return {
      tempBytes,
      run: (inputs, outputs, scalars) => {
        const queue = { input: [...inputs], output: [...outputs] };
        const buffers = program.buffers.map((spec, i) =>
          spec.kind === "temp" ? temps[i]! : (queue[spec.kind].shift() as ReferenceBuffer).memory,
        );
        for (const step of program.steps) runStep(step, buffers, scalars);
      },
      free: () => this.count(-tempBytes),
    };
  }

  sync(): Promise<void> {
    return Promise.resolve();
  }

  /** Bytes of buffers and temporaries: the current number and the largest so far. */
  memory(): BackendMemory {
    return { liveBytes: this.#live, peakBytes: this.#peak };
  }

  close(): void {}
}
