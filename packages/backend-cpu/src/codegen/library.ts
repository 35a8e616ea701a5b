/**
 * The functions that a backend has compiled, by the structure of the steps that they compute. The first step of a structure gets a
 * function with its sizes as constants. When another program has a step of that structure with other sizes, a function is compiled that
 * serves all sizes, and every later program uses it. Both compute the same bits.
 */
import type { Module } from "./assembler.ts";
import type { Numbers } from "./sizes.ts";

/** A module of functions, each exported by its number. */
export class CodeModule {
  bytes: Uint8Array<ArrayBuffer> = new Uint8Array();
  /** The structures of its functions. */
  readonly keys: Set<string> = new Set();
  size = 0;
}

/** A function of a module. */
export interface Code {
  readonly module: CodeModule;
  readonly index: number;
  /** Whether it reads sizes from its arguments. */
  readonly isGeneral: boolean;
}

interface Entry {
  general: Code | null;
  /** Functions for single steps, and the numbers of each. */
  single: { readonly numbers: readonly number[]; readonly code: Code }[];
}

/** A step, whose function may be known. */
export interface Structured {
  /** Equal for steps whose functions differ in `numbers` alone. */
  readonly key: string;
  readonly numbers: Numbers;
  /** Adds the function to the module under `name`; if `isGeneral`, one that reads the step's numbers from its arguments. */
  readonly emit: (module: Module, name: string, isGeneral: boolean) => void;
}

/** The export name of a module's function number `i`. */
export const exportName = (i: number): string => `k${i}`;

export class Library {
  /** How many functions were added: for single steps, and for all sizes. */
  readonly counts: { single: number; general: number } = { single: 0, general: 0 };
  readonly #entries = new Map<string, Entry>();

  /** The function for a step whose numbers are `values`; if there is none, adds one to `code`, whose functions are in `module`. */
  find(step: Structured, values: readonly number[], code: CodeModule, module: Module): Code {
    const { key } = step;
    let entry = this.#entries.get(key);
    if (entry === undefined) this.#entries.set(key, (entry = { general: null, single: [] }));
    const isSame = (number: number, i: number): boolean => number === values[i];
    const known = entry.single.find((one) => one.numbers.every(isSame))?.code ?? entry.general;
    if (known !== null) return known;
    const isGeneral = this.isGeneral(entry.single.some((other) => other.code.module !== code));
    const added = { module: code, index: code.size++, isGeneral };
    code.keys.add(key);
    if (isGeneral) entry.general = added;
    else entry.single.push({ numbers: values, code: added });
    this.counts[isGeneral ? "general" : "single"]++;
    step.emit(module, exportName(added.index), isGeneral);
    return added;
  }

  /** Forgets the functions of a module. */
  drop(module: CodeModule): void {
    for (const key of module.keys) {
      const entry = this.#entries.get(key);
      if (entry === undefined) continue;
      if (entry.general?.module === module) entry.general = null;
      entry.single = entry.single.filter(({ code }) => code.module !== module);
      if (entry.general === null && entry.single.length === 0) this.#entries.delete(key);
    }
  }

  /** Whether a function is compiled for all sizes, given whether an earlier program has a step of its structure. */
  protected isGeneral(isMet: boolean): boolean {
    return isMet;
  }
}
