/**
 * The modules of a backend's functions: their bytes in memory, from where workers load them, and their functions on the calling thread.
 * A module that no program uses any more is kept for a while, because the next program may have steps of the same structures.
 */
import { type Code, type CodeModule, exportName, type Library } from "../codegen/library.ts";
import { GEMM_MODULE } from "../codegen/matmul/imports.ts";
import type { Heap } from "./heap.ts";

export type StepCode = (frame: number, args: number, chunk: number, scratch: number) => void;

/** The most bytes of modules that no program uses. */
const IDLE_BYTES = 8 * 2 ** 20;

interface Loaded {
  /** Where the number of its bytes is in memory; they follow it. */
  readonly address: number;
  readonly bytes: number;
  module: WebAssembly.Module | null;
  /** While it is being compiled. */
  compiling: Promise<void> | null;
  functions: StepCode[] | null;
  /** How many programs use it. */
  users: number;
}

export class Modules {
  readonly #heap: Heap;
  readonly #library: Library;
  /** Tells the workers to forget what is at an address; returns the ticket of the last work that may use it. */
  readonly #forget: (address: number) => number;
  /** Those that no program uses come in the order in which they were left. */
  readonly #loaded = new Map<CodeModule, Loaded>();
  #idleBytes = 0;

  constructor(heap: Heap, library: Library, forget: (address: number) => number) {
    this.#heap = heap;
    this.#library = library;
    this.#forget = forget;
  }

  /** Loads a module if it has functions: synchronously, except where an engine forbids that on its main thread. */
  load(code: CodeModule): void {
    if (code.size === 0) return;
    const { bytes } = code;
    try {
      const address = this.#allocate(4 + bytes.byteLength);
      this.#heap.words[address >>> 2] = bytes.byteLength;
      this.#heap.bytes.set(bytes, address + 4);
      const loaded: Loaded = {
        address,
        bytes: bytes.byteLength,
        module: null,
        compiling: null,
        functions: null,
        users: 0,
      };
      this.#loaded.set(code, loaded);
      this.#idleBytes += loaded.bytes;
      this.#compile(code, loaded);
    } catch (cause) {
      this.#drop(code);
      throw cause;
    }
  }

  /** Resolves when all functions can be called; null if they can. */
  ready(functions: readonly Code[]): Promise<unknown> | null {
    const all = [...modulesOf(functions)].flatMap((code) => this.#of(code).compiling ?? []);
    return all.length === 0 ? null : Promise.all(all);
  }

  /** Keeps the modules of `functions` for a program. */
  use(functions: readonly Code[]): void {
    for (const code of modulesOf(functions)) {
      const loaded = this.#of(code);
      if (loaded.users++ === 0) this.#idleBytes -= loaded.bytes;
    }
  }

  /** Undoes `use`. */
  leave(functions: readonly Code[]): void {
    for (const code of modulesOf(functions)) {
      const loaded = this.#of(code);
      if (--loaded.users > 0) continue;
      this.#idleBytes += loaded.bytes;
      this.#loaded.delete(code);
      this.#loaded.set(code, loaded);
    }
    this.dropIdle(IDLE_BYTES);
  }

  /** Drops modules that no program uses, down to so many bytes. */
  dropIdle(most = 0): void {
    for (const [code, { users }] of this.#loaded) {
      if (this.#idleBytes <= most) return;
      if (users === 0) this.#drop(code);
    }
  }

  /** Where a module is in memory. */
  address(code: CodeModule): number {
    return this.#of(code).address;
  }

  /** A function as the calling thread calls it. */
  function({ module, index }: Code, gemm: WebAssembly.Exports): StepCode {
    const loaded = this.#of(module);
    loaded.functions ??= this.#instantiate(loaded, gemm);
    const step = loaded.functions[index];
    if (step === undefined) throw new Error(`a module has no function ${exportName(index)}`);
    return step;
  }

  #compile(code: CodeModule, loaded: Loaded): void {
    try {
      loaded.module = new WebAssembly.Module(code.bytes);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      loaded.compiling = this.#compileLater(code, loaded);
    }
    code.bytes = new Uint8Array();
  }

  async #compileLater(code: CodeModule, loaded: Loaded): Promise<void> {
    try {
      loaded.module = await WebAssembly.compile(code.bytes);
      loaded.compiling = null;
    } catch (cause) {
      this.#library.drop(code);
      throw cause;
    }
  }

  #instantiate({ module }: Loaded, gemm: WebAssembly.Exports): StepCode[] {
    if (module === null) throw new Error("a module was called before it was compiled");
    const imports = { env: { memory: this.#heap.memory }, [GEMM_MODULE]: gemm };
    const { exports } = new WebAssembly.Instance(module, imports);
    return Object.keys(exports).map((_, i) => exports[exportName(i)] as StepCode);
  }

  #allocate(bytes: number): number {
    const address = this.#heap.tryAllocateOwn(bytes);
    if (address !== null) return address;
    this.dropIdle();
    return this.#heap.allocateOwn(bytes);
  }

  #drop(code: CodeModule): void {
    this.#library.drop(code);
    const loaded = this.#loaded.get(code);
    if (loaded === undefined) return;
    this.#loaded.delete(code);
    if (loaded.users === 0) this.#idleBytes -= loaded.bytes;
    this.#heap.releaseOwn(loaded.address, this.#forget(loaded.address));
  }

  #of(code: CodeModule): Loaded {
    const loaded = this.#loaded.get(code);
    if (loaded === undefined)
      throw new Error("a bug in the CPU backend: a module is not loaded; please report it");
    return loaded;
  }
}

const modulesOf = (functions: readonly Code[]): Set<CodeModule> =>
  new Set(functions.map(({ module }) => module));
