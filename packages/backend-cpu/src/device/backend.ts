/**
 * The CPU backend: programs compiled to WebAssembly SIMD, run by workers over one shared memory in lock step, or on the
 * calling thread where memory cannot be shared, threads are not wanted or the program is small.
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
} from "@tiedlora/kernels";
import { type FolderCache, folderCache } from "@tiedlora/kernels/folder-cache";
import { peakProgram } from "../codegen/peak.ts";
import { ProgramImage } from "./image.ts";
import type { Tile } from "../codegen/matmul/gemm.ts";
import { gemmModule } from "../codegen/matmul/gemm.ts";
import { CpuBuffer } from "./buffer.ts";
import { CpuExecutable, type ProgramRunner } from "./executable.ts";
import { Heap, MAX_BYTES } from "./heap.ts";
import { canShareMemory, defaultTile, hasRelaxedSimd, parallelism, revectorizes } from "./platform.ts";
import { whyNoWorkers } from "./platform.ts";
import { Modules } from "./modules.ts";
import { type KernelTime, Recorder } from "./profile.ts";
import { revectorization } from "../revectorize/verdict.ts";
import { Library } from "../codegen/library.ts";
import type { CompiledProgram } from "../codegen/compiled.ts";
import { accelerates, compileProgram } from "../codegen/program.ts";
import { ENTRY } from "./worker-source.ts";
import { Workers } from "./workers.ts";
import type { WorkerHandle } from "./platform.ts";

/** How the CPU backend computes. */
export interface CpuBackendOptions {
  /** Threads that compute; 1 computes on the calling thread. Default: as many as the machine runs at once. */
  readonly threads?: number;
  /** The register tile of matrix products. Default: the one that was measured to be fastest on this engine. */
  readonly tile?: Tile;
  /**
   * Whether V8 combines pairs of 128-bit operations into 256-bit ones, which about doubles the speed of matrix products. This
   * is an experimental feature of V8 13 and later (Node 24); `true` turns it on for the whole process. "auto" turns it on if a
   * self-check finds equal bits and faster products on this machine: two seconds once, then the verdict is kept in a file.
   * Default: whether the process was started with `--experimental-wasm-revectorize`.
   */
  readonly revectorize?: boolean | "auto";
  /**
   * Programs whose estimated run time is below this many nanoseconds, or below a twelfth of it for each of their steps, run immediately on
   * the calling thread: waking a worker takes about as long, and steps this short gain nothing from several. Default 60,000.
   */
  readonly inlineNs?: number;
  /**
   * The most bytes that the device's memory may grow to, for tensors, temporaries and compiled programs together: a whole
   * number from 1 MiB to 4 GiB, the default. A page may set it lower, to stay below the amount at which its browser ends the
   * page.
   */
  readonly maxBytes?: number;
  /**
   * A folder, made if it is not there, in which plans and generated code are kept for later processes (Node, Bun and Deno): there they are
   * read instead of made. Processes may share it. Default: none.
   */
  readonly cache?: string;
}

/** Default of `inlineNs`. */
const INLINE_NS = 60_000;
/** A program of more steps than this may take longer and still run on the calling thread, in proportion. */
const SHORT_STEPS = 12;
const MIB = 2 ** 20;
const NOT_SHARED =
  "memory cannot be shared with workers here; a page has to be cross-origin isolated for it (the headers " +
  "cross-origin-opener-policy: same-origin and cross-origin-embedder-policy: require-corp)";
/** How long an allocation waits for memory while no worker makes progress. */
const PATIENCE_MS = 10_000;

/** The GEMM core, compiled once per process for each tile and kind of memory (shared or not). */
const gemmModules = new Map<string, WebAssembly.Module>();

function gemmCore(tile: Tile, shared: boolean): WebAssembly.Module {
  const key = JSON.stringify([tile, shared]);
  let module = gemmModules.get(key);
  if (module === undefined) gemmModules.set(key, (module = new WebAssembly.Module(gemmModule(tile, shared))));
  return module;
}

/** The packages that make what is kept. */
const PACKAGES = ["@tiedlora/kernels", "@tiedlora/core", "@tiedlora/backend-cpu"];

function openCache(folder: string, { dtypes, ...caps }: Caps): FolderCache {
  return folderCache(folder, JSON.stringify(["cpu", [...dtypes], caps]), import.meta, PACKAGES);
}

/** Runs of the peak program, of which the fastest counts; the engine has not yet optimized the code of the first ones. */
const PEAK_RUNS = 8;

/** Memory that programs use in turn; it grows to the most that any of them needs. */
interface Region {
  readonly address: number;
  readonly bytes: number;
}
const NOTHING: Region = { address: 0, bytes: 0 };

/** Compiles programs to WebAssembly with SIMD, and runs them on threads. Users open it by `cpu()`. */
export class CpuBackend implements Backend, ProgramRunner {
  readonly name = "cpu";
  readonly threads: number;
  /** Why it computes on fewer threads than were asked for, or than the machine has; null if it does not. */
  readonly whyFewerThreads: string | null;
  readonly caps: Caps;
  readonly cache: FolderCache | undefined;
  readonly #heap: Heap;
  readonly #inlineNs: number;
  readonly #tile: Tile;
  /** Whether the engine combines pairs of 128-bit operations into 256-bit ones. */
  readonly revectorized: boolean;
  readonly #gemm: WebAssembly.Module;
  readonly #workers: Workers | null;
  readonly #library: Library;
  readonly #modules: Modules;
  #gemmHere: WebAssembly.Exports | null = null;
  /** Memory of each thread for its intermediate results; `bytes` per thread. */
  #scratch: Region = NOTHING;
  /** Memory for temporaries, which programs use in turn. */
  #temps: Region = NOTHING;
  #images = new Set<ProgramImage>();
  #failure: Error | null = null;
  #recorder: Recorder | null = null;
  #closed = false;

  /** `obstacle`: why no workers can be started here, if that is known. `library`: for tests, where functions are kept. */
  constructor(
    options: CpuBackendOptions = {},
    obstacle: string | null = null,
    library: Library = new Library(),
  ) {
    const threads = options.threads ?? parallelism();
    if (!Number.isInteger(threads) || threads < 1 || threads > 256) {
      throw new RangeError(`cpu({ threads: ${threads} }): expected a whole number from 1 to 256`);
    }
    const maxBytes = options.maxBytes ?? MAX_BYTES;
    if (!Number.isInteger(maxBytes) || maxBytes < MIB || maxBytes > MAX_BYTES) {
      throw new RangeError(
        `cpu({ maxBytes: ${maxBytes} }): expected a whole number of bytes from ${MIB} (1 MiB) to ${MAX_BYTES} (4 GiB)`,
      );
    }
    this.caps = {
      dtypes: new Set<DType>(["f32", "f16", "bf16", "i32", "u32", "bool"]),
      maxOperands: 64,
      maxBufferBytes: Math.max(0, maxBytes - MIB),
      maxTotalBytes: maxBytes,
      slides: maxBytes,
    };
    this.whyFewerThreads = threads === 1 ? null : canShareMemory() ? obstacle : NOT_SHARED;
    this.threads = this.whyFewerThreads === null ? threads : 1;
    this.#inlineNs = options.inlineNs ?? INLINE_NS;
    this.revectorized = revectorizes(options.revectorize === "auto" ? undefined : options.revectorize);
    const tile = options.tile ?? defaultTile(this.revectorized);
    this.#tile = { ...tile, fma: tile.fma && hasRelaxedSimd() };
    const shared = this.threads > 1;
    this.#heap = new Heap({
      shared,
      maxBytes,
      done: () => this.#done,
      advance: () => this.#workers?.advance(PATIENCE_MS) ?? false,
    });
    this.#gemm = gemmCore(this.#tile, shared);
    this.#workers = shared ? new Workers(this.#heap, this.#gemm, this.threads) : null;
    this.cache = options.cache === undefined ? undefined : openCache(options.cache, this.caps);
    this.#library = library;
    this.#modules = new Modules(this.#heap, this.#library, (address) => this.#drop(address));
  }

  accelerates(call: LibraryCall): boolean {
    return accelerates(call);
  }

  /**
   * A buffer in the heap, with unspecified content. Throws a RangeError unless `bytes` is a whole number up to
   * `caps.maxBufferBytes`, and an Error if the heap cannot grow any further.
   */
  alloc(bytes: number): DeviceBuffer {
    this.assertOpen();
    if (!Number.isInteger(bytes) || bytes < 0 || bytes > this.caps.maxBufferBytes) {
      throw new RangeError(
        `alloc(${bytes}): expected a whole number of bytes up to ${this.caps.maxBufferBytes}`,
      );
    }
    let address = this.#heap.tryAllocate(bytes);
    if (address === null) {
      this.#releaseTemps(); // the next run of a program allocates them again
      this.#modules.dropIdle();
      address = this.#heap.tryAllocate(bytes);
    }
    return new CpuBuffer(this, address ?? this.#heap.allocate(bytes, "a tensor"), bytes);
  }

  /** Compiles a program: synchronously, except where an engine forbids compiling on its main thread. */
  compile(program: Program): Executable | Promise<Executable> {
    this.assertOpen();
    const options = { threads: this.threads, shared: this.#heap.shared, tile: this.#tile };
    const compiled = compileProgram(program, options, this.#library, this.cache);
    const image = this.#imageOf(program, compiled);
    const executable = new CpuExecutable(this, image);
    const ready = this.#modules.ready(compiled.functions);
    if (ready === null) return executable;
    return ready.then(
      () => executable,
      (cause: unknown) => {
        executable.free();
        throw cause;
      },
    );
  }

  #imageOf(program: Program, compiled: CompiledProgram): ProgramImage {
    this.#modules.load(compiled.module);
    this.#modules.use(compiled.functions);
    try {
      const image = new ProgramImage(this.#heap, program, compiled, this.#modules);
      this.#images.add(image);
      return image;
    } catch (cause) {
      this.#modules.leave(compiled.functions);
      throw cause;
    }
  }

  async sync(): Promise<void> {
    await this.#workers?.whenDone(this.#workers.last);
    const failure = this.#takeFailure();
    if (failure !== null) throw failure;
  }

  /** Bytes of buffers and temporaries: now, and the most so far. */
  memory(): BackendMemory {
    return { liveBytes: this.#heap.liveBytes, peakBytes: this.#heap.peakBytes };
  }

  /**
   * The peak arithmetic rate of this engine on this machine, in billions of floating-point operations per second. Each call
   * measures it, by multiply-adds in registers on all threads.
   */
  async peakGflops(): Promise<number> {
    const { compiled, flop } = peakProgram(this.threads, this.#heap.shared, {
      fma: this.#tile.fma,
      wide: this.revectorized,
    });
    const image = this.#imageOf({ buffers: [], scalars: 0, steps: [] }, compiled);
    let best = Infinity;
    for (let i = 0; i < PEAK_RUNS; i++) {
      const start = performance.now();
      this.run(image, [], new Float64Array());
      await this.sync();
      best = Math.min(best, performance.now() - start);
    }
    this.forget(image);
    return flop / best / 1e6;
  }

  /** Runs `work` on the calling thread and returns how long each kernel that it submitted took. */
  async profile(work: () => void | Promise<void>): Promise<KernelTime[]> {
    await this.sync();
    const recorder = new Recorder();
    this.#recorder = recorder;
    try {
      await work();
    } finally {
      this.#recorder = null;
    }
    return recorder.finish();
  }

  close(): void {
    this.#closed = true;
    this.#workers?.close();
    this.#images.clear();
  }

  /** @internal The handles of its workers, for tests that end one. */
  workersForTest(): readonly WorkerHandle[] {
    return this.#workers?.started ?? [];
  }

  // --- for buffers and executables of this backend

  /** @internal */
  assertOpen(): void {
    if (this.#closed) throw new Error("this CPU device is closed; make a new one with cpu()");
  }

  get #done(): number {
    return this.#workers?.done ?? 0;
  }

  get #last(): number {
    return this.#workers?.last ?? 0;
  }

  get #idle(): boolean {
    return this.#workers === null || this.#workers.idle;
  }

  #takeFailure(): Error | null {
    const failure = this.#failure ?? this.#workers?.takeFailure() ?? null;
    this.#failure = null;
    return failure;
  }

  /** @internal */
  writeBytes(address: number, data: Uint8Array): void {
    if (this.#workers === null || this.#idle) return this.#heap.bytes.set(data, address);
    const staging = this.#heap.tryAllocateOwn(data.byteLength);
    // if there is no room for a copy, then all work is done by now, or the workers are stuck
    if (staging === null) return this.#assertIdle().#heap.bytes.set(data, address);
    this.#heap.bytes.set(data, staging);
    const ticket = this.#workers.submit(ENTRY.copy, address, staging, data.byteLength);
    this.#heap.releaseOwn(staging, ticket);
  }

  /** @internal */
  async readBytes(address: number, bytes: number): Promise<ArrayBuffer> {
    const [workers, heap] = [this.#workers, this.#heap];
    if (workers === null || this.#idle) {
      const copy = heap.bytes.slice(address, address + bytes).buffer;
      const failure = this.#takeFailure();
      if (failure !== null) throw failure;
      return copy;
    }
    // the result must not include work that is submitted after this call, so the copy is queued in order
    const staging = heap.tryAllocateOwn(bytes);
    if (staging === null) return this.#assertIdle().readBytes(address, bytes);
    const ticket = workers.submit(ENTRY.copy, staging, address, bytes);
    try {
      await workers.whenDone(ticket);
      const failure = this.#takeFailure();
      if (failure !== null) throw failure;
      return heap.bytes.slice(staging, staging + bytes).buffer;
    } finally {
      heap.releaseOwn(staging, ticket);
    }
  }

  #assertIdle(): this {
    if (this.#idle) return this;
    throw new Error(
      `the workers of the CPU backend have done nothing for ${PATIENCE_MS / 1000} s, and there is no memory to go on without them`,
    );
  }

  /** @internal */
  viewBytes(address: number, bytes: number): Uint8Array | null {
    return this.#heap.shared ? new Uint8Array(this.#heap.memory.buffer, address, bytes) : null;
  }

  /** @internal */
  freeBytes(address: number, bytes: number): void {
    if (!this.#closed) this.#heap.release(address, bytes, this.#last);
  }

  /** @internal */
  run(image: ProgramImage, buffers: readonly number[], scalars: Float64Array): void {
    const [workers, heap] = [this.#workers, this.#heap];
    const { compiled } = image;
    this.#reserveTemps(image.tempBytes);
    this.#reserveScratch(compiled.scratchBytes);
    const frame = image.frame(buffers, scalars, this.#temps.address, this.#scratch, this.#done);
    const isShort = compiled.cost < this.#inlineNs * Math.max(1, compiled.calls.length / SHORT_STEPS);
    const here = workers === null || (this.#idle && (isShort || this.#recorder !== null));
    if (here) {
      try {
        this.#gemmHere ??= new WebAssembly.Instance(this.#gemm, { env: { memory: heap.memory } }).exports;
        image.runHere(frame, this.#gemmHere, this.#scratch.address, this.#recorder);
      } catch (error) {
        this.#failure ??= new Error(`a program failed on the CPU backend: ${String(error)}`, {
          cause: error,
        });
      }
    } else frame.ticket = workers.submit(ENTRY.run, image.descriptor, frame.address, 0);
  }

  /** @internal */
  forget(image: ProgramImage): void {
    if (this.#closed || !this.#images.delete(image)) return;
    this.#drop(image.descriptor);
    image.free(this.#last);
    if (this.#images.size === 0) this.#releaseTemps();
  }

  /** Makes the workers forget the program or the module at an address; returns the ticket of the last work. */
  #drop(address: number): number {
    const workers = this.#workers;
    if (workers !== null && workers.last > 0 && !workers.failed) workers.submit(ENTRY.drop, address, 0, 0);
    return this.#last;
  }

  #releaseTemps(): void {
    if (this.#temps.bytes > 0) this.#heap.release(this.#temps.address, this.#temps.bytes, this.#last);
    this.#temps = NOTHING;
  }

  #reserveTemps(bytes: number): void {
    if (bytes <= this.#temps.bytes) return;
    this.#releaseTemps();
    this.#temps = { address: this.#heap.allocate(bytes, "temporaries of a program"), bytes };
  }

  #reserveScratch(bytes: number): void {
    if (bytes <= this.#scratch.bytes) return;
    if (this.#scratch.bytes > 0) this.#heap.releaseOwn(this.#scratch.address, this.#last);
    this.#scratch = NOTHING;
    const aligned = Math.ceil(bytes / 64) * 64;
    this.#scratch = { address: this.#heap.allocateForWork(aligned * this.threads), bytes: aligned };
  }
}

/**
 * Makes a CPU backend; `cpu()` makes a device of it. Where a page's policy forbids workers, it warns on the console and
 * computes on one thread.
 */
export async function createCpuBackend(options: CpuBackendOptions = {}): Promise<CpuBackend> {
  const wantsWorkers = (options.threads ?? parallelism()) > 1 && canShareMemory();
  const obstacle = wantsWorkers ? await whyNoWorkers() : null;
  if (obstacle !== null) console.warn(`The CPU backend computes on one thread: ${obstacle}`);
  const { revectorize } = options;
  const chosen = revectorize === "auto" ? { ...options, revectorize: (await revectorization()).on } : options;
  return new CpuBackend(chosen, obstacle);
}
