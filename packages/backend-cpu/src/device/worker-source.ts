/**
 * The code of a worker, and the control block it shares with the JavaScript thread. The workers run submitted entries in lock
 * step: within a step, they take chunks from a counter; between steps, they wait for each other at a barrier. Waiting workers
 * spin for a bounded time and then sleep; no messages are posted.
 */

/** Positions in the control block, in 32-bit words; words that different threads write are on different cache lines. */
export const CONTROL = {
  /** Entries submitted and entries done, modulo 2^32. */
  submitted: 0,
  done: 16,
  /** The barrier: how many workers have arrived, and how many times all of them have. */
  arrived: 32,
  generation: 48,
  /** The next chunk of the step. */
  next: 64,
  /** How many workers sleep. */
  sleepers: 80,
  /** 1 once something has failed; `message` then holds the length of the error message and its UTF-16 code units. */
  failed: 96,
  /** The number of workers that have started. */
  ready: 97,
  /** The size of the WebAssembly memory at the last submission, in pages. */
  pages: 98,
  message: 112,
  messageLength: 512,
  queue: 640,
  /** The number of entries of the ring. Each is `entryWords` words long: its kind and three operands. */
  queueLength: 1024,
  entryWords: 4,
} as const;

export const CONTROL_BYTES: number = 4 * (CONTROL.queue + CONTROL.queueLength * CONTROL.entryWords);

/** Kinds of queue entries. */
export const ENTRY = {
  /** Runs a program; operands: descriptor, frame. */
  run: 0,
  /** Copies memory; operands: to, from, bytes. */
  copy: 1,
  /** Forgets a program or a module; operand: address of the descriptor, or of the module. */
  drop: 2,
} as const;

/**
 * A program's descriptor in WebAssembly memory, in words: number of calls, number of functions, offset in a frame of the scratch
 * memory's address and its size per thread; then per call: function, chunks, address of its arguments, whether a barrier follows;
 * then per function: address of its module, number there. A module is the number of its bytes, and then these.
 */
export const DESCRIPTOR = {
  calls: 0,
  functions: 1,
  scratchAt: 2,
  first: 3,
  callWords: 4,
} as const;

/** The first message that is sent to a worker. */
export interface WorkerStart {
  readonly memory: WebAssembly.Memory;
  readonly control: SharedArrayBuffer;
  readonly gemm: WebAssembly.Module;
  readonly id: number;
  readonly threads: number;
  readonly spin: number;
}

/** Runs in the worker. It is self-contained, because only its source text is sent there. */
function main(C: typeof CONTROL, E: typeof ENTRY, D: typeof DESCRIPTOR, start: WorkerStart): void {
  const { memory, id, threads, spin } = start;
  type Step = (frame: number, args: number, chunk: number, scratch: number) => void;
  const c = new Int32Array(start.control);
  const gemm = new WebAssembly.Instance(start.gemm, { env: { memory } }).exports;
  /** By address. */
  const programs = new Map<number, Step[]>();
  const modules = new Map<number, Step[]>();
  let words = new Int32Array(memory.buffer);

  const waitWhile = (at: number, value: number): void => {
    for (let i = 0; i < spin; i++) if (Atomics.load(c, at) !== value) return;
    Atomics.add(c, C.sleepers, 1);
    while (Atomics.load(c, at) === value) Atomics.wait(c, at, value);
    Atomics.sub(c, C.sleepers, 1);
  };

  /** Waits for the other workers; the last one to arrive runs `finished` before any of them continues. */
  const barrier = (finished?: () => void): void => {
    const generation = Atomics.load(c, C.generation);
    if (Atomics.add(c, C.arrived, 1) < threads - 1) return waitWhile(C.generation, generation);
    Atomics.store(c, C.arrived, 0);
    Atomics.store(c, C.next, 0);
    finished?.();
    Atomics.add(c, C.generation, 1);
    if (Atomics.load(c, C.sleepers) > 0) Atomics.notify(c, C.generation);
  };

  const fail = (error: unknown): void => {
    if (Atomics.compareExchange(c, C.failed, 0, 1) !== 0) return;
    const text = String(error).slice(0, C.messageLength - 1);
    for (let i = 0; i < text.length; i++) c[C.message + 1 + i] = text.charCodeAt(i);
    Atomics.store(c, C.message, text.length);
  };

  const moduleAt = (address: number): Step[] => {
    let steps = modules.get(address);
    if (steps !== undefined) return steps;
    const bytes = new Uint8Array(memory.buffer, address + 4, words[address >>> 2]).slice();
    const imports = { env: { memory }, gemm };
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes), imports);
    steps = Object.keys(exports).map((_, i) => exports["k" + i] as Step);
    modules.set(address, steps);
    return steps;
  };

  const load = (descriptor: number): Step[] => {
    const d = descriptor >>> 2;
    const steps: Step[] = [];
    const first = d + D.first + D.callWords * words[d + D.calls]!;
    for (let i = 0; i < words[d + D.functions]!; i++) {
      steps.push(moduleAt(words[first + 2 * i]! >>> 0)[words[first + 2 * i + 1]!]!);
    }
    return steps;
  };

  const stepsOf = (descriptor: number): Step[] => {
    let steps = programs.get(descriptor);
    if (steps === undefined) {
      try {
        steps = load(descriptor);
      } catch (error) {
        fail(error);
        steps = [];
      }
      programs.set(descriptor, steps);
    }
    return steps;
  };

  /** A step that traps is skipped, but its barrier is not, because the other workers wait there. */
  const runStep = (
    step: Step | undefined,
    chunks: number,
    frame: number,
    args: number,
    scratch: number,
  ): void => {
    try {
      if (step === undefined) throw new Error("a program could not be loaded");
      if (chunks > 1) {
        for (let i; (i = Atomics.add(c, C.next, 1)) < chunks;) step(frame, args, i, scratch);
      } else if (id === 0) step(frame, args, 0, scratch);
    } catch (error) {
      fail(error);
    }
  };

  const run = (descriptor: number, frame: number): void => {
    const steps = stepsOf(descriptor);
    const d = descriptor >>> 2;
    const header = (frame + words[d + D.scratchAt]!) >>> 2;
    const scratch = words[header]! + id * words[header + 1]!;
    const end = d + D.first + D.callWords * words[d + D.calls]!;
    for (let at = d + D.first; at < end; at += D.callWords) {
      runStep(steps[words[at]!], words[at + 1]!, frame, words[at + 2]!, scratch);
      if (words[at + 3] === 1) barrier();
    }
  };

  const execute = (entry: number): void => {
    const kind = c[entry];
    if (kind === E.run) run(c[entry + 1]! >>> 0, c[entry + 2]! >>> 0);
    else if (kind === E.drop) {
      programs.delete(c[entry + 1]! >>> 0);
      modules.delete(c[entry + 1]! >>> 0);
    } else if (id === 0) {
      const from = c[entry + 2]! >>> 0;
      new Uint8Array(memory.buffer).copyWithin(c[entry + 1]! >>> 0, from, from + (c[entry + 3]! >>> 0));
    }
  };

  Atomics.add(c, C.ready, 1);
  for (let head = 0; ; head = (head + 1) | 0) {
    waitWhile(C.submitted, head);
    if (words.byteLength < c[C.pages]! * 65536) {
      memory.grow(0); // without this, growth by another thread may not be visible yet
      words = new Int32Array(memory.buffer);
    }
    execute(C.queue + (head & (C.queueLength - 1)) * C.entryWords);
    barrier(() => {
      Atomics.store(c, C.done, (head + 1) | 0);
      Atomics.notify(c, C.done);
    });
  }
}

/** The source of a worker: waits for a `WorkerStart`, then never returns to its event loop. */
export function workerSource(): string {
  const constants = [CONTROL, ENTRY, DESCRIPTOR].map((c) => JSON.stringify(c)).join(", ");
  return `"use strict";
const __name = (f) => f; // esbuild's keepNames refers to it
const main = ${main.toString()};
const start = (message) => main(${constants}, message);
if (typeof WorkerGlobalScope === "undefined") require("node:worker_threads").parentPort.once("message", start);
else self.onmessage = (event) => start(event.data);
`;
}
