/** The WebGPU backend: memory, compilation, and the reporting of errors from a device that works asynchronously. */
import {
  type Backend,
  type BackendMemory,
  type BufferSpec,
  type Caps,
  type DeviceBuffer,
  type DType,
  type Executable,
  type LibraryCall,
  type Program,
} from "@tiedlora/kernels";
import { type FolderCache, folderCache } from "@tiedlora/kernels/folder-cache";
import { multipliesExactly } from "./check.ts";
import { GpuBuffer, MERGE_CODE, StagingPool, type Transfers } from "./buffer.ts";
import { DeviceClosedError, type DeviceLostError, outOfMemory, WebGpuError } from "../errors.ts";
import { type Counters, GpuExecutable, type Host } from "./executable.ts";
import { Lowering, lowerProgram } from "../codegen/lower.ts";
import { type Block, MemoryPool, USAGE } from "./memory.ts";
import { type AdapterInfo, type Gpu, openGpu, type OpenOptions } from "./open.ts";
import { PipelineCache } from "./pipelines.ts";
import { type KernelTime, Recorder } from "./profile.ts";
import { Temporaries } from "./temporaries.ts";
import {
  type TileBenchmark,
  exampleOf,
  fastestTile,
  kindsOf,
  measuredTiles,
  tilesFor,
} from "./tile-benchmark.ts";
import { ErrorScopes } from "./error-scopes.ts";
import { windowOf } from "../codegen/shown.ts";
import { isRendered } from "../codegen/library.ts";
import type { Target, Tile } from "../codegen/target.ts";
import { kindName, tileName } from "../codegen/matmul/tiles.ts";

const NO_SCALARS = new Float64Array();

/**
 * Opens an adapter and makes a backend of it. Rejects with NoAdapterError if there is none (the message says how to get one),
 * and with MissingFeatureError if it lacks a feature that `options` need.
 */
export async function createWebGpuBackend(options: OpenOptions = {}): Promise<WebGpuBackend> {
  return WebGpuBackend.on(await openGpu(options));
}

/** The packages that make what is kept. */
const PACKAGES = ["@tiedlora/kernels", "@tiedlora/core", "@tiedlora/backend-webgpu"];

function openCache(folder: string, { dtypes, ...caps }: Caps): FolderCache {
  return folderCache(folder, JSON.stringify(["webgpu", [...dtypes], caps]), import.meta, PACKAGES);
}

/** Compiles programs to WGSL, and submits each as one command buffer. Users open it by `webgpu()`. */
export class WebGpuBackend implements Backend, Transfers {
  readonly name = "webgpu";
  readonly caps: Caps;
  readonly cache: FolderCache | undefined;
  readonly pool: MemoryPool;
  readonly #temporaries: Temporaries;
  /** The adapter's name, features and limits. */
  readonly adapter: AdapterInfo;
  readonly #gpu: Gpu;
  #target: Target;
  #lowering: Lowering;
  readonly #tiles: Map<string, Tile>;
  /** Settles when the measurements so far have ended; measurements run one at a time. */
  #measured: Promise<void> = Promise.resolve();
  readonly #pipelines: PipelineCache;
  readonly #staging: StagingPool;
  readonly #scopes: ErrorScopes;
  readonly #counters: Counters = { dispatches: 0, bindGroups: 0, submissions: 0 };
  readonly #host: Host;
  readonly #onError: (event: GPUUncapturedErrorEvent) => void;
  /** The reject functions of promises that wait for the device. */
  readonly #waiting = new Set<(error: Error) => void>();
  #recorder: Recorder | undefined;
  #failure: Error | undefined;
  #lost: DeviceLostError | DeviceClosedError | undefined;
  #closed = false;

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
    this.#target = gpu.target;
    this.adapter = gpu.info;
    const { device, target } = gpu;
    this.#tiles = measuredTiles(gpu.info, target);
    this.#lowering = this.#makeLowering();
    const fail = (error: Error): void => void (this.#failure ??= error);
    this.#scopes = new ErrorScopes(device);
    this.pool = new MemoryPool(device, device.limits.maxBufferSize, this.#scopes, fail);
    this.#temporaries = new Temporaries(this.pool);
    this.#pipelines = new PipelineCache(device);
    this.#staging = new StagingPool(device);
    this.caps = {
      dtypes: new Set<DType>(["f32", "f16", "bf16", "i32", "u32", "bool"]),
      maxOperands: target.maxBindings,
      maxBufferBytes: device.limits.maxBufferSize,
      slides: windowOf(target),
    };
    this.cache = gpu.cache === undefined ? undefined : openCache(gpu.cache, this.caps);
    this.#onError = (event) => {
      event.preventDefault(); // reported by the next sync or read instead of on the console
      fail(this.#toError(event.error));
    };
    device.addEventListener("uncapturederror", this.#onError);
    void this.#watchLoss();
    this.#host = this.#makeHost(fail);
  }

  /** Makes a backend of an open device. The backend does without subgroup matrices if the device makes mistakes with them. */
  static async on(gpu: Gpu): Promise<WebGpuBackend> {
    const backend = new WebGpuBackend(gpu);
    if (gpu.target.matrix && !(await multipliesExactly(backend))) {
      backend.#target = { ...gpu.target, matrix: undefined };
      backend.#lowering = backend.#makeLowering();
      backend.#failure = undefined;
    }
    return backend;
  }

  async #watchLoss(): Promise<void> {
    const error = await this.#gpu.lost;
    this.#lost = error;
    for (const reject of this.#waiting) reject(error);
  }

  #makeHost(fail: (error: Error) => void): Host {
    const recorder = (): Recorder | undefined => this.#recorder;
    return {
      device: this.device,
      pool: this.pool,
      temporaries: this.#temporaries,
      counters: this.#counters,
      scopes: this.#scopes,
      mostBound: windowOf(this.#target),
      fail,
      rejection: (error) => this.#toError(error),
      get recorder() {
        return recorder();
      },
      usable: () => {
        this.#assertOpen();
        return this.#lost === undefined;
      },
    };
  }

  /** The WebGPU device. */
  get device(): GPUDevice {
    return this.#gpu.device;
  }

  /** Counts so far: dispatches, bind groups made, command buffers submitted, steps rendered, pipelines compiled. */
  get counters(): Readonly<Counters> & { readonly rendered: number; readonly pipelines: number } {
    return {
      ...this.#counters,
      rendered: this.#lowering.rendered,
      pipelines: this.#pipelines.compiled,
    };
  }

  /** A buffer on the GPU, from the pool if one fits. */
  alloc(bytes: number, lasts = false): DeviceBuffer {
    this.#assertOpen();
    return new GpuBuffer(bytes, this, lasts);
  }

  accelerates(call: LibraryCall): boolean {
    return isRendered(call);
  }

  /** Renders the shaders of a program, and compiles those that are new; resolves when all are ready. */
  async compile(program: Program): Promise<Executable> {
    this.#assertOpen();
    if (this.#lost) throw this.#lost;
    await this.#measureTiles(program);
    return this.#executable(program, this.#lowering);
  }

  #makeLowering(): Lowering {
    return new Lowering(this.#measures ? { ...this.#target, tiles: this.#tiles } : this.#target);
  }

  async #executable(program: Program, lowering: Lowering, host: Host = this.#host): Promise<GpuExecutable> {
    const { kernels, scratchBytes } = lowering.keptOrLowered(program, this.cache);
    const pipelines = await this.#orLost(Promise.all(kernels.map((k) => this.#pipelines.get(k))));
    return new GpuExecutable(host, withScratch(program.buffers, scratchBytes), kernels, pipelines);
  }

  /** Whether tiles are measured; only tiled kernels have a choice of tiles. */
  get #measures(): boolean {
    const { software, matrix } = this.#target;
    return this.#gpu.measure && !software && !matrix;
  }

  /** The tiles that were measured to be fastest, by the kind of the product; see `OpenOptions.measure`. */
  get measuredTiles(): ReadonlyMap<string, string> {
    return new Map([...this.#tiles].map(([kind, tile]) => [kind, tileName(tile)]));
  }

  /** Measures the tiles for the kinds of the program's products that are not known yet. */
  async #measureTiles(program: Program): Promise<void> {
    if (!this.#measures) return;
    const measure = async (): Promise<void> => {
      const benchmarks = kindsOf(program)
        .filter((kind) => !this.#tiles.has(kindName(kind)))
        .map((kind) => ({ kind, example: exampleOf(kind), tiles: tilesFor(kind, this.#target) }));
      // pipelines are compiled all at once, in parallel; measurements run one after the other
      await Promise.all(
        benchmarks.flatMap(({ example, tiles }) => tiles.map((tile) => this.#pipelinesOf(example, tile))),
      );
      for (const { kind, example, tiles } of benchmarks)
        this.#tiles.set(kindName(kind), await fastestTile(tiles, this.#benchmark(example)));
    };
    const measured = this.#measured.then(measure);
    this.#measured = measured.catch(() => undefined);
    return measured;
  }

  /** Compiles a program with one tile, and ignores kernels that do not compile. */
  async #pipelinesOf(program: Program, tile: Tile): Promise<void> {
    const { kernels } = lowerProgram(program, { ...this.#target, tile });
    await this.#orLost(Promise.allSettled(kernels.map((k) => this.#pipelines.get(k))));
  }

  #benchmark(program: Program): TileBenchmark {
    const failures = new Set<Error>();
    const host: Host = {
      ...this.#host,
      recorder: undefined,
      counters: { dispatches: 0, bindGroups: 0, submissions: 0 },
      fail: (error) => void failures.add(error),
    };
    const buffers = program.buffers.map(({ bytes }) => new GpuBuffer(bytes, this));
    const [inputs, outputs] = [buffers.slice(0, 2), buffers.slice(2)];
    const finished = async (): Promise<void> => {
      await this.#orLost(this.device.queue.onSubmittedWorkDone());
      await this.#orLost(this.#scopes.settled());
      for (const { failure } of buffers) if (failure) failures.add(failure);
    };
    return {
      enter: async (tile) => {
        const executable = await this.#executable(program, new Lowering({ ...this.#target, tile }), host);
        const run = async (times: number): Promise<number> => {
          await finished();
          const started = performance.now();
          for (let i = 0; i < times && failures.size === 0; i++) executable.run(inputs, outputs, NO_SCALARS);
          await finished();
          return failures.size === 0 ? performance.now() - started : Infinity;
        };
        return { run, free: () => executable.free() };
      },
      end: () => {
        for (const buffer of buffers) buffer.free();
        if (this.#failure && failures.has(this.#failure)) this.#failure = undefined; // only the benchmark caused it
      },
    };
  }

  async sync(): Promise<void> {
    this.#assertOpen();
    await this.#orLost(this.device.queue.onSubmittedWorkDone());
    await this.#orLost(this.#scopes.settled());
    this.#throwFailure();
  }

  /** Bytes of buffers and temporaries: now, and the most so far. */
  memory(): BackendMemory {
    return { liveBytes: this.pool.liveBytes, peakBytes: this.pool.peakBytes };
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.device.removeEventListener("uncapturederror", this.#onError); // otherwise Dawn would keep this object alive
    this.#gpu.close();
  }

  /**
   * Runs `work` and returns how long each kernel that it submitted took on the device. Throws where the adapter has no
   * timestamp queries.
   */
  async profile(work: () => void | Promise<void>): Promise<KernelTime[]> {
    this.#assertOpen();
    if (!this.device.features.has("timestamp-query")) {
      throw new WebGpuError(
        `the device "${this.adapter.description}" has no timestamp queries (feature "timestamp-query"), ` +
          'or was opened with variant "plain"; measure whole steps by the clock instead',
      );
    }
    const recorder = new Recorder(this.device);
    this.#recorder = recorder;
    try {
      await work();
    } catch (error) {
      recorder.discard();
      throw error;
    } finally {
      this.#recorder = undefined;
    }
    return recorder.finish((promise) => this.#orLost(promise));
  }

  /** Copies `data` to byte `offset` of a buffer, after all work submitted before. */
  write(to: GpuBuffer, data: ArrayBufferView, offset: number): void {
    if (!this.#host.usable()) return;
    const isAll = offset === 0 && data.byteLength === to.bytes;
    const { block } = to;
    this.#scopes.of(
      "validation",
      () => this.#write(block, data, offset),
      (error) => {
        if (!error && isAll) return to.spoil(undefined);
        if (!error || block.refused) return;
        const failure = this.#toError(error);
        to.spoil(failure);
        this.#host.fail(failure);
      },
    );
  }

  #write(block: Block, data: ArrayBufferView, offset: number): void {
    const { queue } = this.device;
    const [start, end] = [Math.ceil(offset / 4) * 4, Math.floor((offset + data.byteLength) / 4) * 4];
    const { buffer, byteOffset, byteLength } = data;
    const bytes = new Uint8Array(buffer, byteOffset, byteLength);
    if (end > start) {
      queue.writeBuffer(block.gpu, start, buffer, byteOffset + start - offset, end - start);
    }
    if (offset < start) this.#merge(block, bytes.subarray(0, Math.min(start - offset, byteLength)), offset);
    if (offset + byteLength > end && end >= start) this.#merge(block, bytes.subarray(end - offset), end);
  }

  /** Writes a part of one word; see MERGE_CODE. */
  #merge(block: Block, bytes: Uint8Array, offset: number): void {
    const [word, mask, value] = [new Uint8Array(4), new Uint8Array(4), bytes];
    mask.fill(255, offset % 4, (offset % 4) + value.length);
    word.set(value, offset % 4);
    const { device } = this;
    const uniform = device.createBuffer({ size: 16, usage: USAGE.UNIFORM | USAGE.COPY_DST });
    const word32 = (x: Uint8Array): number => new Uint32Array(x.buffer)[0]!;
    device.queue.writeBuffer(
      uniform,
      0,
      new Uint32Array([Math.floor(offset / 4), word32(mask), word32(word), 0]),
    );
    const pipeline = (this.#mergePipeline ??= device.createComputePipeline({
      layout: "auto",
      compute: { module: device.createShaderModule({ code: MERGE_CODE }), entryPoint: "main" },
    }));
    const entries = [block.gpu, uniform].map((gpu, binding) => ({ binding, resource: { buffer: gpu } }));
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
    pass.dispatchWorkgroups(1);
    pass.end();
    device.queue.submit([encoder.finish()]);
    uniform.destroy();
  }
  #mergePipeline: GPUComputePipeline | undefined;

  /** Copies bytes of a buffer to the host, after all work submitted before. */
  async read(from: GpuBuffer, offset: number, bytes: number): Promise<ArrayBuffer> {
    this.#assertOpen();
    if (this.#lost) throw this.#lost;
    if (bytes === 0) return new ArrayBuffer(0);
    const start = Math.floor(offset / 4) * 4;
    const size = Math.ceil((offset + bytes - start) / 4) * 4;
    const staging = await this.#copied(from, start, size);
    const copy = staging.getMappedRange(0, size).slice(offset - start, offset - start + bytes);
    staging.unmap();
    this.#staging.give(staging);
    this.#throwFailure();
    return copy;
  }

  /**
   * A mapped copy of bytes `start` to `start + size`. Rejects with the error that spoiled the buffer, or with the error of
   * the copy.
   */
  async #copied(from: GpuBuffer, start: number, size: number): Promise<GPUBuffer> {
    const errors: Error[] = [];
    const learn = (error: GPUError | null): void => void (error && errors.push(this.#toError(error)));
    const staging = this.#scopes.of("out-of-memory", () => this.#staging.take(size), learn);
    this.#scopes.of("validation", () => this.#copy(from.block, start, staging, size), learn);
    const mapped = staging.mapAsync(USAGE.MAP_READ, 0, size);
    await this.#orLost(mapped).catch((error: unknown) => errors.push(error as Error));
    await this.#orLost(this.#scopes.settled());
    const failure = from.failure ?? errors[0];
    if (!failure) return staging;
    staging.destroy();
    if (this.#failure === failure) this.#failure = undefined; // reported here
    throw failure;
  }

  #copy(from: Block, start: number, to: GPUBuffer, size: number): void {
    const encoder = this.device.createCommandEncoder();
    encoder.copyBufferToBuffer(from.gpu, start, to, 0, size);
    this.device.queue.submit([encoder.finish()]);
    this.#counters.submissions++;
  }

  /** The promise, or a rejection as soon as the device is lost or closed. */
  async #orLost<T>(promise: Promise<T>): Promise<T> {
    const result = new Promise<T>((resolve, reject) => {
      if (this.#lost) return reject(this.#lost);
      this.#waiting.add(reject);
      promise.then(resolve, reject).finally(() => this.#waiting.delete(reject));
    });
    return this.#gpu.backoff.wait(result);
  }

  #assertOpen(): void {
    if (this.#closed) {
      throw new DeviceClosedError("this WebGPU device was closed; open a new one with webgpu()");
    }
  }

  /** Throws the first error since the last call, if there was one. */
  #throwFailure(): void {
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure) throw failure;
  }

  #toError(error: GPUError): Error {
    return error.constructor.name === "GPUOutOfMemoryError"
      ? outOfMemory(this.pool.liveBytes, error.message)
      : new WebGpuError(
          `the WebGPU implementation rejected an operation; please report this: ${error.message}`,
        );
  }
}

/** The buffers that kernels bind: scratch follows the program's own and belongs to the executable like temporaries. */
function withScratch(buffers: readonly BufferSpec[], scratchBytes: readonly number[]): BufferSpec[] {
  return [...buffers, ...scratchBytes.map((bytes) => ({ kind: "temp" as const, bytes }))];
}
