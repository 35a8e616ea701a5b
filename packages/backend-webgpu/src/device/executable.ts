/**
 * A compiled program: pipelines, temporaries, and bind groups made once for each set of buffers it is run on. A run
 * encodes one command buffer.
 */
import type { BufferSpec, Executable } from "@tiedlora/kernels";
import type { GpuBuffer } from "./buffer.ts";
import type { Block, MemoryPool } from "./memory.ts";
import type { Pipeline } from "./pipelines.ts";
import type { Recorder } from "./profile.ts";
import type { Temporaries } from "./temporaries.ts";
import { UniformBlock } from "./uniforms.ts";
import type { ErrorScopes } from "./error-scopes.ts";
import { wholeBytes } from "../codegen/shown.ts";
import type { Kernel } from "../codegen/target.ts";

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
  readonly temporaries: Temporaries;
  readonly counters: Counters;
  readonly scopes: ErrorScopes;
  /** The most bytes of a buffer that a kernel sees at once. */
  readonly mostBound: number;
  /** Times kernels while profiling. */
  readonly recorder: Recorder | undefined;
  /** False once the device is lost: work is dropped, and reads and syncs reject. Throws after close(). */
  usable(): boolean;
  /** The error that a rejected operation is reported as. */
  rejection(error: GPUError): Error;
  /** Records an error, which the next read or sync reports. */
  fail(error: Error): void;
}

/** Bind groups are kept for this many sets of buffers per program, and this many per kernel: a part of a loop runs on many. */
const KEPT_SETS = 256;
/** A buffer up to this size that differs from run to run is copied to or from a buffer that the executable keeps (a stage), unless it lasts. */
const STAGED_BYTES = 1 << 20;

interface Dispatch {
  readonly kernel: Kernel;
  readonly pipeline: Pipeline;
  /** Bind groups by the identities of the buffers that are not the executable's own. */
  readonly groups: Map<string, GPUBindGroup>;
}

/** A copy of `bytes` bytes between a buffer of the caller and the executable's own. */
interface Copy {
  readonly from: Block;
  readonly to: Block;
  readonly bytes: number;
}

/** The memory that one run was encoded with. */
interface Run {
  readonly own: readonly (Block | undefined)[];
  readonly inputs: readonly GpuBuffer[];
  readonly outputs: readonly GpuBuffer[];
  /** Outputs that last, and may hold what an earlier program failed to compute. */
  readonly refilled: readonly GpuBuffer[];
}

export class GpuExecutable implements Executable {
  readonly #host: Host;
  readonly #specs: readonly BufferSpec[];
  /** The memory that no caller gives: temporaries, and stages of buffers that change from run to run. */
  readonly #own: (Block | undefined)[];
  /** The temporaries, the largest first. */
  readonly #temps: readonly number[];
  readonly #tempSizes: readonly number[];
  /** The version of the shared temporaries that `#own` has. */
  #tempsVersion = -1;
  /** The buffer that was given for each input in the first run. */
  readonly #first: (GpuBuffer | undefined)[];
  /** Buffers that have no stage: they have been given in memory that lasts, or as windows of larger buffers. */
  readonly #direct = new Set<number>();
  /** The inputs that have been windows of larger buffers: all of the buffer is bound, and kernels add where the window starts. */
  readonly #sliding = new Set<number>();
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
    this.#temps = temporariesOf(specs);
    this.#tempSizes = this.#temps.map((i) => specs[i]!.bytes);
    this.#own = takeStages(specs, host.pool);
    try {
      host.temporaries.reserve(this.#tempSizes);
    } catch (error) {
      this.#giveStages();
      throw error;
    }
    this.#first = specs.map(() => undefined);
    this.#dispatches = kernels.map((kernel, i) => ({ kernel, pipeline: pipelines[i]!, groups: new Map() }));
    this.#uniforms = new UniformBlock(host.device, kernels);
  }

  get tempBytes(): number {
    return this.#specs.reduce(
      (sum, { kind, bytes }, i) => sum + (kind === "temp" || this.#own[i] ? bytes : 0),
      0,
    );
  }

  run(inputs: readonly GpuBuffer[], outputs: readonly GpuBuffer[], scalars: Float64Array): void {
    if (this.#freed) throw new Error("Executable.run: this executable was freed");
    if (!this.#host.usable() || this.#dispatches.length === 0) return;
    const failure = inputs.find((buffer) => buffer.failure)?.failure;
    if (failure) throw failure;
    const refilled = outputs.filter((output) => output.lasts && !inputs.includes(output));
    for (const output of refilled) output.refill();
    const given = this.#given(inputs, outputs);
    this.#replaceRefused();
    this.#findTemporaries();
    this.#bindDirectly(given);
    this.#stageInputs(given);
    const own = [...this.#own];
    this.#host.scopes.of(
      "validation",
      () => this.#submit(given, scalars),
      (error) => this.#judge(error, { own, inputs, outputs, refilled }),
    );
  }

  #submit(given: readonly (GpuBuffer | undefined)[], scalars: Float64Array): void {
    const { device, counters, recorder } = this.#host;
    const groups = this.#bindGroups(given.map((buffer, i) => this.#own[i] ?? buffer!.block));
    this.#uniforms.update(scalars);
    const encoder = device.createCommandEncoder();
    encodeCopies(encoder, this.#copiesIn(given));
    if (recorder) recorder.encode(encoder, this.#dispatches, groups);
    else encodePass(encoder.beginComputePass(), this.#dispatches, groups);
    encodeCopies(encoder, this.#copiesOut(given));
    device.queue.submit([encoder.finish()]);
    counters.submissions++;
    counters.dispatches += this.#dispatches.length;
  }

  free(): void {
    if (this.#freed) throw new Error("Executable.free: this executable was freed before; free it once");
    this.#freed = true;
    this.#giveStages();
    this.#host.temporaries.release(this.#temps.length);
    this.#uniforms.free();
    this.#sets.clear();
    for (const d of this.#dispatches) d.groups.clear();
  }

  /**
   * Handles the error of a submission. A rejected submission has no effect; a submission that read a spoiled buffer has run,
   * and the buffers that it wrote are spoiled too.
   */
  #judge(error: GPUError | null, { own, inputs, outputs, refilled }: Run): void {
    const read = inputs.find((buffer) => buffer.failure)?.failure;
    if (!error) {
      if (read) for (const output of outputs) output.spoil(read);
      else for (const output of refilled) output.spoil(undefined);
      return;
    }
    const refused = own.find((block) => block?.refused)?.refused;
    const unheld = outputs.find((buffer) => buffer.failure)?.failure;
    const failure = read ?? refused ?? unheld ?? this.#host.rejection(error);
    for (const output of outputs) if (!inputs.includes(output)) output.spoil(failure);
    this.#host.fail(failure);
  }

  /** Allocates again the stages that the device refused. */
  #replaceRefused(): void {
    this.#own.forEach((block, i) => {
      if (!block?.refused || this.#specs[i]!.kind === "temp") return;
      this.#own[i] = undefined;
      this.#host.pool.give(block, this.#specs[i]!.bytes);
      this.#setOwn(i, this.#host.pool.take(this.#specs[i]!.bytes));
    });
  }

  /** Uses the shared temporaries as they are now. */
  #findTemporaries(): void {
    const { temporaries } = this.#host;
    temporaries.ensure(this.#tempSizes);
    if (this.#tempsVersion === temporaries.version) return;
    this.#temps.forEach((i, k) => {
      const block = temporaries.at(k, this.#tempSizes[k]!);
      if (this.#own[i] !== block) this.#setOwn(i, block);
    });
    this.#tempsVersion = temporaries.version;
  }

  #giveStages(): void {
    this.#own.forEach((block, i) => {
      if (block && this.#specs[i]!.kind !== "temp") this.#host.pool.give(block, this.#specs[i]!.bytes);
    });
  }

  /** Sets the memory for buffer `i`, and forgets the bind groups that have other memory for it. */
  #setOwn(i: number, block: Block | undefined): void {
    this.#own[i] = block;
    this.#sets.clear();
    for (const { kernel, groups } of this.#dispatches) {
      if (kernel.bindings.some(({ buffer }) => buffer === i)) groups.clear();
    }
  }

  /**
   * Gives an input a stage once its buffer differs from that of the first run, as it does for batches: bind groups then no
   * longer depend on the input's buffer.
   */
  #stageInputs(given: readonly (GpuBuffer | undefined)[]): void {
    given.forEach((buffer, i) => {
      const { kind, bytes } = this.#specs[i]!;
      if (kind !== "input" || this.#own[i] || this.#direct.has(i)) return;
      const first = (this.#first[i] ??= buffer);
      if (first === buffer || bytes > STAGED_BYTES || this.#isUpdated(i)) return;
      this.#setOwn(i, this.#host.pool.take(bytes));
    });
  }

  /** Binds buffers themselves, here and in all later runs, where one lasts, or is larger than the program says. */
  #bindDirectly(given: readonly (GpuBuffer | undefined)[]): void {
    given.forEach((buffer, i) => {
      if (!buffer || this.#sliding.has(i)) return;
      const { kind, bytes } = this.#specs[i]!;
      const whole = wholeBytes(bytes);
      const isWindow = kind === "input" && wholeBytes(buffer.bytes) > whole && whole <= this.#host.mostBound;
      if (!isWindow && (!buffer.lasts || this.#direct.has(i))) return;
      this.#direct.add(i);
      if (isWindow) this.#sliding.add(i);
      const stage = this.#own[i];
      this.#setOwn(i, undefined);
      if (stage) this.#host.pool.give(stage, bytes);
    });
  }

  #isUpdated(input: number): boolean {
    return this.#specs.some(({ aliasOf }) => aliasOf === input);
  }

  /**
   * The copies to every stage, which run before the kernels; outputs are copied too, because a program may write only parts
   * of one.
   */
  #copiesIn(given: readonly (GpuBuffer | undefined)[]): Copy[] {
    return given.flatMap((buffer, i) => {
      const own = this.#own[i];
      return own && buffer ? [{ from: buffer.block, to: own, bytes: this.#words(i) }] : [];
    });
  }

  /** The copies from the stages of outputs, which run after the kernels. */
  #copiesOut(given: readonly (GpuBuffer | undefined)[]): Copy[] {
    return given.flatMap((buffer, i) => {
      const own = this.#specs[i]!.kind === "output" ? this.#own[i] : undefined;
      return own && buffer ? [{ from: own, to: buffer.block, bytes: this.#words(i) }] : [];
    });
  }

  /** Bytes of a buffer, rounded up to whole words, as copies require. */
  #words(i: number): number {
    return Math.ceil(this.#specs[i]!.bytes / 4) * 4;
  }

  /** The caller's buffer for every buffer of the program; undefined for temporaries. */
  #given(inputs: readonly GpuBuffer[], outputs: readonly GpuBuffer[]): readonly (GpuBuffer | undefined)[] {
    const next = { input: 0, output: 0 };
    const given = { input: inputs, output: outputs };
    const buffers = this.#specs.map(({ kind }) => {
      if (kind === "temp") return undefined;
      const buffer = given[kind][next[kind]++];
      if (!buffer) throw missing(kind, next[kind], given[kind].length);
      return buffer;
    });
    if (next.input < inputs.length || next.output < outputs.length) {
      throw new Error(
        `Executable.run: the program has ${next.input} inputs and ${next.output} outputs, ` +
          `but was given ${inputs.length} and ${outputs.length}`,
      );
    }
    return buffers;
  }

  #bindGroups(blocks: readonly Block[]): readonly GPUBindGroup[] {
    const key = blocks.map((b, i) => (this.#own[i] ? "" : b.id)).join(",");
    const known = this.#sets.get(key);
    if (known) return known;
    const groups = this.#dispatches.map((d) => this.#bindGroup(d, blocks));
    remember(this.#sets, key, groups);
    return groups;
  }

  #bindGroup(dispatch: Dispatch, blocks: readonly Block[]): GPUBindGroup {
    const { kernel, pipeline } = dispatch;
    const key = kernel.bindings.map(({ buffer }) => (this.#own[buffer] ? "" : blocks[buffer]!.id)).join(",");
    const known = dispatch.groups.get(key);
    if (known) return known;
    const entries = kernel.bindings.map(({ buffer, offset, bytes }, binding): GPUBindGroupEntry => {
      const { gpu, size: all } = blocks[buffer]!;
      const size = this.#sliding.has(buffer) ? Math.min(all, this.#host.mostBound) : bytes;
      return { binding, resource: { buffer: gpu, offset, size } };
    });
    entries.push({ binding: entries.length, resource: this.#uniforms.resource(kernel) });
    const group = this.#host.device.createBindGroup({ layout: pipeline.layout, entries });
    this.#host.counters.bindGroups++;
    remember(dispatch.groups, key, group);
    return group;
  }
}

/** The temporaries of a program, the largest first. */
function temporariesOf(specs: readonly BufferSpec[]): number[] {
  const temps = specs.flatMap(({ kind }, i) => (kind === "temp" ? [i] : []));
  return temps.sort((a, b) => specs[b]!.bytes - specs[a]!.bytes);
}

/** Allocates stages of small outputs. If one allocation fails, frees the others and throws. */
function takeStages(specs: readonly BufferSpec[], pool: MemoryPool): (Block | undefined)[] {
  const own: (Block | undefined)[] = [];
  try {
    for (const { kind, bytes, aliasOf } of specs) {
      const isStaged = kind === "output" && aliasOf === undefined && bytes <= STAGED_BYTES;
      own.push(isStaged ? pool.take(bytes) : undefined);
    }
    return own;
  } catch (error) {
    own.forEach((block, i) => block && pool.give(block, specs[i]!.bytes));
    throw error;
  }
}

function encodeCopies(encoder: GPUCommandEncoder, copies: readonly Copy[]): void {
  for (const { from, to, bytes } of copies) encoder.copyBufferToBuffer(from.gpu, 0, to.gpu, 0, bytes);
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

/** Adds an entry to a cache; a full cache drops its oldest entry. */
function remember<T>(cache: Map<string, T>, key: string, value: T): void {
  if (cache.size >= KEPT_SETS) cache.delete(cache.keys().next().value!);
  cache.set(key, value);
}

function missing(kind: string, wanted: number, given: number): Error {
  return new Error(`Executable.run: the program has at least ${wanted} ${kind}s, but was given ${given}`);
}
