/** The backend interface. A new backend starts as a loop over `program.steps`; see CONTRIBUTING.md, "add a backend". */
import type { DType } from "./dtype.ts";
import type { LibraryCall, Program } from "./kernel.ts";
import type { LastingCache } from "./lasting-cache.ts";

/** Device memory. Operations on it take effect in the order of submission, also relative to `Executable.run`. */
export interface DeviceBuffer {
  readonly bytes: number;
  /** Copies `data` in at byte `offset`, after every program submitted earlier and before any program submitted later. */
  write(data: ArrayBufferView, offset?: number): void;
  /** Copies out `bytes` bytes from `offset` on (default: all) once all work submitted so far is done. */
  read(offset?: number, bytes?: number): Promise<ArrayBuffer>;
  /**
   * The memory itself, for the host to fill without a copy; null, or no such method, where device and host do not share memory.
   * Nothing is put in order: use it only while no submitted program uses the memory.
   */
  hostView?(): Uint8Array | null;
  /** Frees the memory once submitted work no longer uses it. Calling it twice is an error. */
  free(): void;
}

/** A compiled program. */
export interface Executable {
  /**
   * Submits the program without waiting for it. `inputs` and `outputs` follow the order of the program's input and output
   * buffers; for an output with `aliasOf`, pass the input's DeviceBuffer again. `scalars` are the run-time numbers, by slot.
   * If the program fails, the next `sync` or `read` rejects.
   */
  run(inputs: readonly DeviceBuffer[], outputs: readonly DeviceBuffer[], scalars: Float64Array): void;
  /** Bytes of device memory held for temporaries. */
  readonly tempBytes: number;
  /** Frees temporaries and compiled code. */
  free(): void;
}

/** The limits of a backend; core plans programs within them. */
export interface Caps {
  /** Element types that buffers may have. */
  readonly dtypes: ReadonlySet<DType>;
  /** The most distinct buffers that one step may touch. */
  readonly maxOperands: number;
  readonly maxBufferBytes: number;
  /** The most bytes of all buffers and temporaries together; left out if that is not known. */
  readonly maxTotalBytes?: number;
  /**
   * Views with run-time terms may leave the bytes that a program names of an input, within the buffer that it is given, if that has at most so
   * many bytes; left out if they may not. Where they may, long loops run as many programs of a few iterations each.
   */
  readonly slides?: number;
}

/** What a planner asks of a backend. */
export type Target = Pick<Backend, "caps" | "accelerates">;

/** How much memory a backend holds. */
export interface BackendMemory {
  /** Bytes in live DeviceBuffers and in the temporaries of executables. */
  readonly liveBytes: number;
  /** The largest `liveBytes` so far. */
  readonly peakBytes: number;
}

/** A backend allocates memory, and compiles and runs programs. */
export interface Backend {
  /** The backend's name in messages, e.g. "cpu". */
  readonly name: string;
  /** The limits of buffers and programs. */
  readonly caps: Caps;
  /** Where plans and code are kept for later processes; undefined or left out if they are not. */
  readonly cache?: LastingCache | undefined;
  /** Allocates `bytes` bytes with undefined content; `lasts` if programs will run on them again and again. Throws if there is not enough memory. */
  alloc(bytes: number, lasts?: boolean): DeviceBuffer;
  /** Whether `compile` has a kernel for this call; if not, core lowers the call to loop kernels before it compiles. */
  accelerates(call: LibraryCall): boolean;
  /** Compiles a program, synchronously or asynchronously; throws or rejects if it cannot. */
  compile(program: Program): Executable | Promise<Executable>;
  /** Resolves when all submitted work is done; rejects with the first error that occurred in that work. */
  sync(): Promise<void>;
  /** Bytes held by buffers and programs: the current number and the largest so far. */
  memory(): BackendMemory;
  /** Frees everything, so that nothing keeps a Node process alive. Calling it twice is harmless. */
  close(): void;
}
