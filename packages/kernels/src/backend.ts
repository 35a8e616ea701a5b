/** What a backend is. A new one starts as a loop over `program.steps`; see CONTRIBUTING.md, "add a backend". */
import type { DType } from "./dtype.ts";
import type { LibraryCall, Program } from "./kernel.ts";

/** Device memory. Operations on it happen in the order of submission, also relative to `Executable.run`. */
export interface DeviceBuffer {
  readonly bytes: number;
  /** Copies `data` in, before any program submitted later runs and after every program submitted earlier. */
  write(data: ArrayBufferView, offset?: number): void;
  /** Copies out `bytes` bytes (default: all) as they are once all work submitted so far is done. */
  read(offset?: number, bytes?: number): Promise<ArrayBuffer>;
  /** Gives the memory back once submitted work is done with it. Calling it twice is an error. */
  free(): void;
}

/** A compiled program. */
export interface Executable {
  /**
   * Submits the program; does not wait. `inputs` and `outputs` follow the order of the program's input and output
   * buffers; an output with `aliasOf` is given the input's DeviceBuffer again. A failure rejects the next `sync` or `read`.
   */
  run(inputs: readonly DeviceBuffer[], outputs: readonly DeviceBuffer[], scalars: Float64Array): void;
  /** Bytes of device memory held for temporaries. */
  readonly tempBytes: number;
  /** Gives back temporaries and compiled code. */
  free(): void;
}

/** What a backend can take: core plans within these limits. */
export interface Caps {
  /** Element types that buffers may have. */
  readonly dtypes: ReadonlySet<DType>;
  /** The most distinct buffers that one step may touch. */
  readonly maxOperands: number;
  readonly maxBufferBytes: number;
}

/** How much memory a backend holds. */
export interface BackendMemory {
  /** Bytes in live DeviceBuffers and in the temporaries of executables. */
  readonly liveBytes: number;
  /** The largest `liveBytes` so far. */
  readonly peakBytes: number;
}

/** What runs programs: it allocates memory and compiles. */
export interface Backend {
  /** What messages call it by, e.g. "cpu". */
  readonly name: string;
  /** What it can hold and compile. */
  readonly caps: Caps;
  /** New memory of `bytes` bytes; its content is anything. Throws where there is no room. */
  alloc(bytes: number): DeviceBuffer;
  /** Whether `compile` has a kernel for this call; if not, core lowers it to loop kernels before. */
  accelerates(call: LibraryCall): boolean;
  /** Makes a program ready to run, perhaps in its own time; rejects if it cannot. */
  compile(program: Program): Executable | Promise<Executable>;
  /** Resolves when all submitted work is done; rejects with the first error of any of it. */
  sync(): Promise<void>;
  /** Bytes held by buffers and programs, now and at most so far. */
  memory(): BackendMemory;
  /** Frees everything. Afterwards Node exits by itself. Calling it twice is harmless. */
  close(): void;
}
