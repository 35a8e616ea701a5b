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

/** What tells a function from all others. */
export interface Identity {
  /** The structure of the steps that it computes. */
  readonly key: string;
  /** Whether it reads sizes from its arguments. */
  readonly isGeneral: boolean;
  /** The numbers of the step that it was compiled for; none if it is general. */
  readonly numbers: readonly number[];
}

/** A function of a module. */
export interface Code extends Identity {
  readonly module: CodeModule;
  readonly index: number;
}

interface Entry {
  general: Code | null;
  /** Functions for single steps. */
  single: Code[];
}

/** A function as a lasting cache has it: its number in the module of its program, or null if an earlier program had it. */
export interface KeptFunction extends Identity {
  readonly index: number | null;
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
  /** How many functions were compiled: for single steps, and for all sizes. */
  readonly counts: { single: number; general: number } = { single: 0, general: 0 };
  /** How many functions were taken from a lasting cache. */
  restored = 0;
  readonly #entries = new Map<string, Entry>();

  /** The function for a step whose numbers are `values`; if there is none, adds one to `code`, whose functions are in `module`. */
  find(step: Structured, values: readonly number[], code: CodeModule, module: Module): Code {
    const { key } = step;
    const entry = this.#entries.get(key);
    const known = single(entry, values) ?? entry?.general;
    if (known) return known;
    const isGeneral = this.isGeneral(entry?.single.some((other) => other.module !== code) ?? false);
    const numbers = isGeneral ? [] : values;
    const added = { module: code, index: code.size, key, isGeneral, numbers };
    this.#add(added);
    this.counts[isGeneral ? "general" : "single"]++;
    step.emit(module, exportName(added.index), isGeneral);
    return added;
  }

  /**
   * The functions of a program that another process has compiled: those of its module, which are added as `code`, and others, which must be
   * known here. Null if one of those is not.
   */
  restore(functions: readonly KeptFunction[], code: CodeModule): Code[] | null {
    const all = functions.map(({ index, ...identity }): Code | undefined => {
      if (index !== null) return { ...identity, module: code, index };
      const entry = this.#entries.get(identity.key);
      return (identity.isGeneral ? entry?.general : single(entry, identity.numbers)) ?? undefined;
    });
    const found = all.filter((one) => one !== undefined);
    if (found.length < all.length) return null;
    const own = new Map(found.flatMap((one) => (one.module === code ? [[one.index, one] as const] : [])));
    [...own.values()].sort((a, b) => a.index - b.index).forEach((one) => this.#add(one));
    this.restored += own.size;
    return found;
  }

  #add(code: Code): void {
    const { module, key, isGeneral } = code;
    let entry = this.#entries.get(key);
    if (entry === undefined) this.#entries.set(key, (entry = { general: null, single: [] }));
    if (isGeneral) entry.general ??= code;
    else entry.single.push(code);
    module.keys.add(key);
    module.size++;
  }

  /** Forgets the functions of a module. */
  drop(module: CodeModule): void {
    for (const key of module.keys) {
      const entry = this.#entries.get(key);
      if (entry === undefined) continue;
      if (entry.general?.module === module) entry.general = null;
      entry.single = entry.single.filter((code) => code.module !== module);
      if (entry.general === null && entry.single.length === 0) this.#entries.delete(key);
    }
  }

  /** Whether a function is compiled for all sizes, given whether an earlier program has a step of its structure. */
  protected isGeneral(isMet: boolean): boolean {
    return isMet;
  }
}

/** The function of an entry for a single step with these numbers. */
function single(entry: Entry | undefined, numbers: readonly number[]): Code | undefined {
  return entry?.single.find((one) => one.numbers.every((number, i) => number === numbers[i]));
}
