/**
 * A compiled program: pipelines, temporaries, and bind groups made once for each set of buffers it is run on. A run
 * encodes one command buffer.
 */
import type { BufferSpec, Executable } from "@tiedlora/core";
import type { GpuBuffer } from "./buffer.ts";
import type { Block, MemoryPool } from "./memory.ts";
import type { Pipeline } from "./pipelines.ts";
import type { Recorder } from "./profile.ts";
import { UniformBlock } from "./uniforms.ts";
import type { Kernel } from "./wgsl/target.ts";

/** Counts of what a backend did so far. */
export interface Counters {
  dispatches: number;
  bindGroups: number;
  submissions: number;
}

/** What an executable needs of its backend. */
export interface Host {
  readonly device: GPUDevice;
  readonly pool: MemoryPool;
  readonly counters: Counters;
  /** Times kernels while profiling. */
  readonly recorder: Recorder | undefined;
  /** False once the device is lost: work is dropped, and reads and syncs reject. Throws after close(). */
  usable(): boolean;
}

/** Bind groups are kept for this many sets of buffers per program, and this many per kernel. */
const KEPT_SETS = 8;

interface Dispatch {
  readonly kernel: Kernel;
  readonly pipeline: Pipeline;
  /** Indices of the program's buffers that are not its own: the bind group depends on them. */
  readonly external: readonly number[];
  readonly groups: Map<string, GPUBindGroup>;
}

export class GpuExecutable implements Executable {
  readonly tempBytes: number;
  readonly #host: Host;
  readonly #specs: readonly BufferSpec[];
  readonly #temps: readonly (Block | undefined)[];
  readonly #dispatches: readonly Dispatch[];
  readonly #uniforms: UniformBlock;
  readonly #sets = new Map<string, readonly GPUBindGroup[]>();
  #freed = false;

  constructor(
    host: Host,
    specs: readonly BufferSpec[],
    kernels: readonly Kernel[],
    pipelines: readonly Pipeline[],
  ) {
    this.#host = host;
    this.#specs = specs;
    const isTemp = (b: BufferSpec): boolean => b.kind === "temp";
    this.tempBytes = specs.reduce((sum, b) => sum + (isTemp(b) ? b.bytes : 0), 0);
    this.#temps = specs.map((b) => (isTemp(b) ? host.pool.take(b.bytes) : undefined));
    this.#dispatches = kernels.map((kernel, i) => ({
      kernel,
      pipeline: pipelines[i]!,
      external: [...new Set(kernel.bindings.map((b) => b.buffer))].filter((b) => !isTemp(specs[b]!)),
      groups: new Map(),
    }));
    this.#uniforms = new UniformBlock(host.device, kernels);
  }

  run(inputs: readonly GpuBuffer[], outputs: readonly GpuBuffer[], scalars: Float64Array): void {
    if (this.#freed) throw new Error("Executable.run: this executable was freed");
    if (!this.#host.usable() || this.#dispatches.length === 0) return;
    const { device, counters, recorder } = this.#host;
    const groups = this.#bindGroups(this.#blocks(inputs, outputs));
    this.#uniforms.update(scalars);
    const encoder = device.createCommandEncoder();
    if (recorder) recorder.encode(encoder, this.#dispatches, groups);
    else encodePass(encoder.beginComputePass(), this.#dispatches, groups);
    device.queue.submit([encoder.finish()]);
    counters.submissions++;
    counters.dispatches += this.#dispatches.length;
  }

  free(): void {
    if (this.#freed) throw new Error("Executable.free: this executable was freed before; free it once");
    this.#freed = true;
    this.#temps.forEach((block, i) => block && this.#host.pool.give(block, this.#specs[i]!.bytes));
    this.#uniforms.free();
    this.#sets.clear();
    for (const d of this.#dispatches) d.groups.clear();
  }

  /** The memory of every buffer of the program in this run. */
  #blocks(inputs: readonly GpuBuffer[], outputs: readonly GpuBuffer[]): readonly Block[] {
    const next = { input: 0, output: 0 };
    const given = { input: inputs, output: outputs };
    const blocks = this.#specs.map(({ kind }, i) => {
      if (kind === "temp") return this.#temps[i]!;
      const buffer = given[kind][next[kind]++];
      if (!buffer) throw missing(kind, next[kind], given[kind].length);
      return buffer.block;
    });
    if (next.input < inputs.length || next.output < outputs.length) {
      throw new Error(
        `Executable.run: the program has ${next.input} inputs and ${next.output} outputs, ` +
          `but was given ${inputs.length} and ${outputs.length}`,
      );
    }
    return blocks;
  }

  #bindGroups(blocks: readonly Block[]): readonly GPUBindGroup[] {
    const key = blocks.map((b, i) => (this.#temps[i] ? "" : b.id)).join(",");
    const known = this.#sets.get(key);
    if (known) return known;
    const groups = this.#dispatches.map((d) => this.#bindGroup(d, blocks));
    remember(this.#sets, key, groups);
    return groups;
  }

  #bindGroup(dispatch: Dispatch, blocks: readonly Block[]): GPUBindGroup {
    const key = dispatch.external.map((b) => blocks[b]!.id).join(",");
    const known = dispatch.groups.get(key);
    if (known) return known;
    const { kernel, pipeline } = dispatch;
    const entries = kernel.bindings.map(({ buffer, offset, bytes }, binding): GPUBindGroupEntry => ({
      binding,
      resource: { buffer: blocks[buffer]!.gpu, offset, size: bytes },
    }));
    entries.push({ binding: entries.length, resource: this.#uniforms.resource(kernel) });
    const group = this.#host.device.createBindGroup({ layout: pipeline.layout, entries });
    this.#host.counters.bindGroups++;
    remember(dispatch.groups, key, group);
    return group;
  }
}

/** Encodes all dispatches into one pass. */
function encodePass(
  pass: GPUComputePassEncoder,
  dispatches: readonly Dispatch[],
  groups: readonly GPUBindGroup[],
): void {
  let current: GPUComputePipeline | undefined;
  dispatches.forEach(({ pipeline, kernel }, i) => {
    if (pipeline.gpu !== current) pass.setPipeline((current = pipeline.gpu));
    pass.setBindGroup(0, groups[i]!);
    pass.dispatchWorkgroups(...kernel.groups);
  });
  pass.end();
}

/** Adds to a bounded cache; the oldest entry goes. */
function remember<T>(cache: Map<string, T>, key: string, value: T): void {
  if (cache.size >= KEPT_SETS) cache.delete(cache.keys().next().value!);
  cache.set(key, value);
}

function missing(kind: string, wanted: number, given: number): Error {
  return new Error(`Executable.run: the program has at least ${wanted} ${kind}s, but was given ${given}`);
}
