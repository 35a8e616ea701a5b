/**
 * A small assembler for structured WebAssembly: it turns expression trees into the bytes of a module. It handles functions,
 * locals, structured loops and the sections of a module; the instruction set is in `instructions.ts`.
 */

export type ValueType = "i32" | "f32" | "f64" | "v128";

/** `N` times "i32". */
export type I32s<N extends number, R extends readonly "i32"[] = readonly []> = R["length"] extends N
  ? R
  : I32s<N, readonly [...R, "i32"]>;

/** `n` parameters of type i32. */
export function i32s<N extends number>(n: N): I32s<N> {
  return Array<"i32">(n).fill("i32") as unknown as I32s<N>;
}

/** Bytes in nested arrays, so that composing expressions copies nothing; they are flattened once. */
export type Code = readonly (number | Code)[];

const TYPE_CODE: { readonly [T in ValueType]: number } = { i32: 0x7f, f32: 0x7d, f64: 0x7c, v128: 0x7b };

/** Unsigned LEB128. */
export function uleb(value: number): number[] {
  const out: number[] = [];
  let rest = value;
  do {
    const low = rest % 128;
    rest = Math.floor(rest / 128);
    out.push(rest > 0 ? low | 0x80 : low);
  } while (rest > 0);
  return out;
}

/** Signed LEB128 of a 32-bit integer. */
function sleb(value: number): number[] {
  const out: number[] = [];
  for (let rest = value | 0; ;) {
    const low = rest & 0x7f;
    rest >>= 7;
    const done = (rest === 0 && (low & 0x40) === 0) || (rest === -1 && (low & 0x40) !== 0);
    out.push(done ? low : low | 0x80);
    if (done) return out;
  }
}

/**
 * Code that leaves one value on the stack. An expression that is used twice is evaluated twice, unless it is bound to a
 * local.
 */
export class Expr {
  readonly type: ValueType;
  readonly code: Code;
  constructor(type: ValueType, code: Code) {
    this.type = type;
    this.code = code;
  }
}

export class Local extends Expr {
  readonly index: number;
  constructor(type: ValueType, index: number) {
    super(type, [0x20, ...uleb(index)]);
    this.index = index;
  }
}

/** An i32 expression, or a constant. */
export type Int = Expr | number;

export function toExpr(x: Int): Expr {
  return typeof x === "number" ? new Expr("i32", [0x41, ...sleb(x)]) : x;
}

/** A function of a module: defined here or imported. */
export interface Callable {
  readonly index: number;
  readonly results: readonly ValueType[];
}

const ADD = 0x6a;
const LT_S = 0x48;

export class Fn implements Callable {
  readonly index: number;
  readonly params: readonly Local[];
  readonly results: readonly ValueType[];
  readonly #locals: ValueType[] = [];
  readonly #body: (number | Code)[] = [];
  /** Code that runs at entry, before the body: it sets the locals that hold constants. */
  readonly #head: (number | Code)[] = [];
  readonly #constants = new Map<string, Local>();

  constructor(index: number, params: readonly ValueType[], results: readonly ValueType[]) {
    this.index = index;
    this.params = params.map((type, i) => new Local(type, i));
    this.results = results;
  }

  local(type: ValueType, initial?: Int): Local {
    const local = new Local(type, this.params.length + this.#locals.length);
    this.#locals.push(type);
    if (initial !== undefined) this.set(local, initial);
    return local;
  }

  /** Evaluates `value` once, into a fresh local. */
  bind(value: Expr): Local {
    return value instanceof Local ? value : this.local(value.type, value);
  }

  /**
   * A constant held in a local that is set once at function entry. V8 12 and later re-creates inline v128 constants
   * inside loops, at three times the cost of the loop.
   */
  constant(key: string, value: Expr): Local {
    let local = this.#constants.get(key);
    if (local === undefined) {
      local = this.local(value.type);
      this.#constants.set(key, local);
      this.#head.push(value.code, 0x21, uleb(local.index));
    }
    return local;
  }

  set(local: Local, value: Int): void {
    this.#body.push(toExpr(value).code, 0x21, uleb(local.index));
  }

  add(local: Local, by: Int): void {
    if (by !== 0) this.set(local, new Expr("i32", [local.code, toExpr(by).code, ADD]));
  }

  /** Appends instructions that leave nothing on the stack. */
  emit(...code: Code): void {
    this.#body.push(code);
  }

  call(target: Callable, ...args: readonly Int[]): void {
    this.#body.push(
      args.map((a) => toExpr(a).code),
      0x10,
      uleb(target.index),
    );
  }

  /** do { body } while (condition) */
  doWhile(body: () => void, condition: () => Expr): void {
    this.#body.push(0x03, 0x40);
    body();
    this.#body.push(condition().code, 0x0d, 0, 0x0b);
  }

  /** A block that `breakIf` can leave. */
  block(body: () => void): void {
    this.#body.push(0x02, 0x40);
    body();
    this.#body.push(0x0b);
  }

  /** while (condition) { body } */
  while(condition: () => Expr, body: () => void): void {
    this.if(condition(), () => this.doWhile(body, condition));
  }

  /** for (v = from; v < to; v += step) { body }, signed. */
  for(v: Local, from: Int, to: Int, step: Int, body: () => void): void {
    const more = (): Expr => new Expr("i32", [v.code, toExpr(to).code, LT_S]);
    this.set(v, from);
    this.while(more, () => {
      body();
      this.add(v, step);
    });
  }

  /**
   * Branches to the structured block that is `depth` levels outside the innermost: leaves it, or, if it is a loop, starts its
   * next iteration.
   */
  breakIf(condition: Expr, depth: number): void {
    this.#body.push(condition.code, 0x0d, uleb(depth));
  }

  if(condition: Expr, then: () => void, otherwise?: () => void): void {
    this.#body.push(condition.code, 0x04, 0x40);
    then();
    if (otherwise !== undefined) {
      this.#body.push(0x05);
      otherwise();
    }
    this.#body.push(0x0b);
  }

  /** Appends the function's entry in the code section: its size, then its content. */
  encode(out: Bytes): void {
    const groups: [count: number, type: ValueType][] = [];
    for (const type of this.#locals) {
      const last = groups.at(-1);
      if (last?.[1] === type) last[0]++;
      else groups.push([1, type]);
    }
    const content = new Bytes();
    content.add(uleb(groups.length));
    for (const [count, type] of groups) content.add([uleb(count), TYPE_CODE[type]]);
    content.add(this.#head);
    content.add(this.#body);
    content.add([0x0b]);
    out.addSized(content);
  }
}

/** A list of bytes that grows at its end. */
class Bytes {
  #data = new Uint8Array(256);
  #length = 0;

  add(code: Code): void {
    for (const part of code) {
      if (typeof part !== "number") this.add(part);
      else {
        if (this.#length === this.#data.length) this.#reserve(1);
        this.#data[this.#length++] = part;
      }
    }
  }

  /** Appends the size of `other`, then its content. */
  addSized(other: Bytes): void {
    this.add(uleb(other.#length));
    this.#reserve(other.#length);
    this.#data.set(other.#data.subarray(0, other.#length), this.#length);
    this.#length += other.#length;
  }

  finish(): Uint8Array<ArrayBuffer> {
    return this.#data.slice(0, this.#length);
  }

  #reserve(more: number): void {
    if (this.#length + more <= this.#data.length) return;
    const grown = new Uint8Array(Math.max(2 * this.#data.length, this.#length + more));
    grown.set(this.#data);
    this.#data = grown;
  }
}

function text(s: string): number[] {
  const bytes = [...new TextEncoder().encode(s)];
  return [...uleb(bytes.length), ...bytes];
}

export interface MemoryImport {
  readonly shared: boolean;
}

/** The largest memory of 32-bit WebAssembly, in pages of 64 KiB: 4 GiB. */
export const MAX_PAGES = 65536;

interface Imported extends Callable {
  readonly module: string;
  readonly name: string;
  readonly params: readonly ValueType[];
}

/**
 * A module with one imported memory (`env.memory`) and with imported and exported functions. Imports must be declared before
 * functions.
 */
export class Module {
  readonly #imports: Imported[] = [];
  readonly #functions: { readonly fn: Fn; readonly name: string | null }[] = [];

  import(
    module: string,
    name: string,
    params: readonly ValueType[],
    results: readonly ValueType[],
  ): Callable {
    if (this.#functions.length > 0) throw new Error("WebAssembly imports must be declared before functions");
    const imported = { module, name, params, results, index: this.#imports.length };
    this.#imports.push(imported);
    return imported;
  }

  /** Defines a function, and exports it if `name` is given. */
  fn<const P extends readonly ValueType[]>(
    name: string | null,
    params: P,
    results: readonly ValueType[],
    build: (f: Fn, ...params: { readonly [I in keyof P]: Local }) => void,
  ): Fn {
    const fn = new Fn(this.#imports.length + this.#functions.length, params, results);
    this.#functions.push({ fn, name });
    build(fn, ...(fn.params as unknown as { readonly [I in keyof P]: Local }));
    return fn;
  }

  bytes(memory: MemoryImport): Uint8Array<ArrayBuffer> {
    const types = new TypeTable();
    const imports = new Bytes();
    imports.add([uleb(this.#imports.length + 1), text("env"), text("memory")]);
    imports.add([0x02, memory.shared ? 3 : 1, uleb(0), uleb(MAX_PAGES)]);
    for (const f of this.#imports) {
      imports.add([text(f.module), text(f.name), 0x00, uleb(types.of(f.params, f.results))]);
    }
    const declared = new Bytes();
    const code = new Bytes();
    for (const section of [declared, code]) section.add(uleb(this.#functions.length));
    for (const { fn } of this.#functions) {
      const params = fn.params.map((p) => p.type);
      declared.add(uleb(types.of(params, fn.results)));
      fn.encode(code);
    }
    const exported = this.#functions.filter((f) => f.name !== null);
    const exports = new Bytes();
    exports.add(uleb(exported.length));
    for (const { fn, name } of exported) exports.add([text(name ?? ""), 0x00, uleb(fn.index)]);
    const signatures = new Bytes();
    signatures.add(types.encode());

    const out = new Bytes();
    out.add([0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0]);
    const sections = [
      [1, signatures],
      [2, imports],
      [3, declared],
      [7, exports],
      [10, code],
    ] as const;
    for (const [id, content] of sections) {
      out.add([id]);
      out.addSized(content);
    }
    return out.finish();
  }
}

/** The type section: one entry per distinct signature. */
class TypeTable {
  readonly #indexOf = new Map<string, number>();
  readonly #entries: number[][] = [];

  of(params: readonly ValueType[], results: readonly ValueType[]): number {
    const key = `${params.join()}>${results.join()}`;
    let index = this.#indexOf.get(key);
    if (index === undefined) {
      index = this.#entries.length;
      this.#indexOf.set(key, index);
      const codes = (types: readonly ValueType[]): number[] => [
        ...uleb(types.length),
        ...types.map((t) => TYPE_CODE[t]),
      ];
      this.#entries.push([0x60, ...codes(params), ...codes(results)]);
    }
    return index;
  }

  encode(): number[] {
    return [...uleb(this.#entries.length), ...this.#entries.flat()];
  }
}
