/**
 * A compiled program in the backend's memory: its descriptor for the workers, its frames, and its execution on the calling
 * thread.
 */
import type { BufferSpec, Program } from "@tiedlora/kernels";
import { at } from "../assert.ts";
import type { Heap } from "./heap.ts";
import type { CompiledProgram } from "../codegen/compiled.ts";
import type { Modules, StepCode } from "./modules.ts";
import type { Recorder } from "./profile.ts";
import { DESCRIPTOR } from "./worker-source.ts";

/**
 * Bytes that temporaries are aligned to. They lie one after the other; programs run one at a time, so all programs share this
 * memory.
 */
const TEMP_ALIGNMENT = 64;

interface Frame {
  readonly address: number;
  /** The ticket of the last submission that reads the frame. */
  ticket: number;
}

export class ProgramImage {
  /** Address of the descriptor, which also identifies the program to the workers. */
  readonly descriptor: number;
  readonly compiled: CompiledProgram;
  readonly specs: readonly BufferSpec[];
  readonly scalars: number;
  /** Bytes of all temporaries together. */
  readonly tempBytes: number;
  /** By buffer number: the buffer's offset in the memory for temporaries. */
  readonly #tempOffsets: ReadonlyMap<number, number>;
  readonly #args: readonly number[];
  readonly #heap: Heap;
  readonly #modules: Modules;
  #frames: Frame[] = [];
  #code: readonly StepCode[] | null = null;

  /** The functions of `compiled` must be loaded, and in use for this program. */
  constructor(heap: Heap, program: Program, compiled: CompiledProgram, modules: Modules) {
    this.#heap = heap;
    this.compiled = compiled;
    this.#modules = modules;
    this.specs = program.buffers;
    this.scalars = program.scalars;
    const offsets = new Map<number, number>();
    let end = 0;
    for (const [buffer, bytes] of compiled.temps) {
      offsets.set(buffer, end);
      end += Math.ceil(bytes / TEMP_ALIGNMENT) * TEMP_ALIGNMENT;
    }
    this.#tempOffsets = offsets;
    this.tempBytes = end;
    const { address, args } = this.#writeDescriptor();
    this.descriptor = address;
    this.#args = args;
  }

  /** Writes the descriptor and the arguments; see DESCRIPTOR. */
  #writeDescriptor(): { address: number; args: number[] } {
    const { functions, calls, frameBytes } = this.compiled;
    const argWords = calls.reduce((n, call) => n + call.addresses.length + call.numbers.length, 0);
    const functionsAt = DESCRIPTOR.first + DESCRIPTOR.callWords * calls.length;
    const headWords = functionsAt + 2 * functions.length;
    const address = this.#heap.allocateOwn(4 * (headWords + argWords));
    const { words } = this.#heap;
    const d = address >>> 2;
    words[d + DESCRIPTOR.calls] = calls.length;
    words[d + DESCRIPTOR.functions] = functions.length;
    words[d + DESCRIPTOR.scratchAt] = frameBytes;
    functions.forEach(({ module, index }, i) => {
      words.set([this.#modules.address(module), index], d + functionsAt + 2 * i);
    });
    const args: number[] = [];
    let argsAt = address + 4 * headWords;
    calls.forEach((call, i) => {
      const next = calls[i + 1];
      // worker 0 runs all steps of one chunk, so there is no barrier between two of them
      const barrier = call.chunks > 1 || (next !== undefined && next.chunks > 1) ? 1 : 0;
      words.set([call.fn, call.chunks, argsAt, barrier], d + DESCRIPTOR.first + DESCRIPTOR.callWords * i);
      words.set(call.addresses, argsAt >>> 2);
      words.set(call.numbers, (argsAt >>> 2) + call.addresses.length);
      args.push(argsAt);
      argsAt += 4 * (call.addresses.length + call.numbers.length);
    });
    return { address, args };
  }

  /**
   * A frame with this run's addresses and scalars. `done`: the last finished submission; the frames of submissions up to it
   * are free.
   */
  frame(
    buffers: readonly number[],
    scalars: Float64Array,
    temps: number,
    scratch: { readonly address: number; readonly bytes: number },
    done: number,
  ): Frame {
    const { buffersAt, frameBytes } = this.compiled;
    let frame = this.#frames.find((f) => f.ticket <= done);
    if (frame === undefined) {
      frame = { address: this.#heap.allocateOwn(frameBytes + 8), ticket: 0 };
      this.#frames.push(frame);
    }
    const { words } = this.#heap;
    const start = (frame.address + buffersAt) >>> 2;
    words.set(buffers, start);
    for (const [buffer, offset] of this.#tempOffsets) words[start + buffer] = temps + offset;
    if (this.scalars > 0) {
      new Float64Array(words.buffer, frame.address, this.scalars).set(scalars);
    }
    words[(frame.address + frameBytes) >>> 2] = scratch.address;
    words[(frame.address + frameBytes + 4) >>> 2] = scratch.bytes;
    return frame;
  }

  /** Runs the program on the calling thread; `recorder` is told how long each call took. */
  runHere(frame: Frame, gemm: WebAssembly.Exports, scratch: number, recorder: Recorder | null = null): void {
    const code = (this.#code ??= this.compiled.functions.map((one) => this.#modules.function(one, gemm)));
    this.compiled.calls.forEach((call, i) => {
      const step = code[call.fn];
      if (step === undefined) throw new Error(`the program has no function ${call.fn}`);
      const args = at(this.#args, i, "call");
      const start = recorder === null ? 0 : performance.now();
      for (let chunk = 0; chunk < call.chunks; chunk++) step(frame.address, args, chunk, scratch);
      recorder?.add(at(this.compiled.steps, i, "step"), performance.now() - start);
    });
  }

  /** Gives the memory back; submissions up to `ticket` may still use it. */
  free(ticket: number): void {
    this.#heap.releaseOwn(this.descriptor, ticket);
    for (const frame of this.#frames) this.#heap.releaseOwn(frame.address, ticket);
    this.#frames = [];
    this.#code = null;
    this.#modules.leave(this.compiled.functions);
  }
}
