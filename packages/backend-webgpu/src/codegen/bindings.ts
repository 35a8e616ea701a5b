/**
 * Storage buffers in a kernel: which WGSL type shows each, and the text of loads and stores. A buffer larger than a
 * binding is shown by several bindings where a kernel needs more of it than one can show.
 */
import { BYTES, type DType, type Operand } from "@tiedlora/kernels";
import { allOf, literal, type Width } from "./arithmetic.ts";
import type { Helpers } from "./helpers.ts";
import { byteExtent } from "./space.ts";
import { type Binding, ceilDiv, range, type ScalarUse, type Target } from "./target.ts";

/** How a buffer's elements are declared: half precision as `f16`, or two to a word. */
type Kind = "f32" | "i32" | "u32" | "f16" | "pair";

const ELEMENT: { readonly [K in Kind]: readonly [one: string, four: string] } = {
  f32: ["f32", "vec4<f32>"],
  i32: ["i32", "vec4<i32>"],
  u32: ["u32", "vec4<u32>"],
  f16: ["f16", "vec4<f16>"],
  pair: ["u32", "vec2<u32>"],
};

/** How an operand is reached along the vector axis. */
export type Mode = "scalar" | "vector" | "gather";

/** One operand in use. Elements are numbered from the start of its part of the buffer: see `offset`. */
export interface Access {
  readonly operand: Operand;
  readonly shown: Shown;
  readonly mode: Mode;
  /** The view's offset, from the start of what is bound. */
  readonly offset: number;
}

/** A buffer, or a part of it, as a kernel sees it. */
interface Shown {
  readonly buffer: number;
  /** First byte and length of the part. */
  readonly start: number;
  readonly bytes: number;
  /** Number of the first of its bindings. */
  readonly first: number;
  /** Bindings, each of `window` bytes but the last. */
  readonly parts: number;
  readonly window: number;
  readonly kind: Kind;
  readonly wide: boolean;
  readonly write: boolean;
  readonly atomic: boolean;
}

/** A request: an operand, whether it is stored to, the lengths of its axes, and the axis walked four at a time. */
export interface Use {
  readonly operand: Operand;
  readonly write: boolean;
  readonly lengths: readonly number[];
  readonly vectorAxis?: number | undefined;
}

/** How `use` can be reached along its vector axis. */
export function modeOf({ operand, lengths, vectorAxis: v }: Use): Mode {
  const { view } = operand;
  if (v === undefined || v >= view.strides.length) return "scalar";
  const valid = view.valid?.[v];
  if (view.strides[v] === 0 && !valid) return "scalar";
  const aligned =
    view.strides[v] === 1 &&
    view.offset % 4 === 0 &&
    (view.moving ?? []).every(({ factor }) => factor % 4 === 0) &&
    view.strides.every((s, d) => d === v || s % 4 === 0 || lengths[d] === 1) &&
    (!valid || (valid[0] % 4 === 0 && (valid[1] % 4 === 0 || valid[1] >= lengths[v]!)));
  return aligned ? "vector" : "gather";
}

function kindOf(dtypes: ReadonlySet<DType>, target: Target): Kind {
  const sizes = new Set([...dtypes].map((d) => BYTES[d]));
  if (sizes.size > 1) {
    throw new Error(
      `backend-webgpu: one kernel sees a buffer as ${[...dtypes].join(" and ")}, of different widths`,
    );
  }
  if (sizes.has(2)) return target.f16 && !dtypes.has("bf16") ? "f16" : "pair";
  const kinds = new Set([...dtypes].map((d): Kind => (d === "f32" || d === "i32" ? d : "u32")));
  return kinds.size === 1 ? [...kinds][0]! : "u32";
}

/** All storage of one kernel. Ask for every operand at construction; then render. */
export class Bindings {
  readonly helpers: Helpers;
  readonly #target: Target;
  readonly #accesses = new Map<Operand, Access>();
  readonly #shown: Shown[] = [];
  readonly #scalars: ScalarUse[] = [];

  constructor(uses: readonly Use[], bufferBytes: readonly number[], target: Target, helpers: Helpers) {
    this.#target = target;
    this.helpers = helpers;
    const byBuffer = new Map<number, Use[]>();
    for (const use of uses) {
      const { buffer } = use.operand;
      byBuffer.set(buffer, [...(byBuffer.get(buffer) ?? []), use]);
    }
    let first = 0;
    for (const [buffer, own] of byBuffer) {
      const shown = this.#show(buffer, own, bufferBytes[buffer]!, first);
      this.#shown.push(shown);
      first += shown.parts;
      for (const use of own) this.#accesses.set(use.operand, accessOf(use, shown));
    }
  }

  #show(buffer: number, uses: readonly Use[], bytes: number, first: number): Shown {
    const whole = Math.max(16, ceilDiv(bytes, 16) * 16);
    const write = uses.some((u) => u.write);
    const kind = kindOf(new Set(uses.map((u) => u.operand.dtype)), this.#target);
    const modes = uses.map(modeOf);
    // Storing one component of a vector may rewrite the others, so narrow stores want narrow elements.
    const narrow = modes.includes("gather") || uses.some((u, i) => u.write && modes[i] === "scalar");
    const wide = modes.includes("vector") && !narrow;
    const atomic = kind === "pair" && uses.some((u, i) => u.write && !(wide && modes[i] === "vector"));
    const window = Math.floor(this.#target.maxBindingBytes / 256) * 256;
    let [start, end] = [0, whole];
    if (whole > this.#target.maxBindingBytes) {
      const touched = uses.flatMap((u) => byteExtent(u.operand, u.lengths) ?? []);
      [start, end] =
        touched.length > 0 ? [Math.min(...touched), Math.min(Math.max(...touched), whole)] : [0, 16];
      start = Math.floor(start / this.#target.offsetAlignment) * this.#target.offsetAlignment;
    }
    const parts = Math.max(1, ceilDiv(end - start, window));
    return {
      buffer,
      start,
      bytes: end - start,
      first,
      parts,
      window,
      kind,
      wide: wide && !atomic,
      write,
      atomic,
    };
  }

  /** Storage bindings used. */
  get count(): number {
    return this.#shown.reduce((n, s) => n + s.parts, 0);
  }

  /** Where an operand's view starts, from the start of what is bound: a number, or a u32 expression. */
  start(operand: Operand): string | number {
    const { offset } = this.access(operand);
    const { moving } = operand.view;
    if (!moving) return offset;
    const terms = moving.map(
      ({ slot, factor }) => `${this.scalar({ slot, dtype: "i32" })} * ${literal(factor, "u32")}`,
    );
    return [literal(offset, "u32"), ...terms].join(" + ");
  }

  access(operand: Operand): Access {
    return this.#accesses.get(operand)!;
  }

  /** The text of a run-time number, as its raw word. */
  scalar(use: ScalarUse): string {
    let i = this.#scalars.findIndex((s) => s.slot === use.slot && s.dtype === use.dtype);
    if (i < 0) i = this.#scalars.push(use) - 1;
    return `P[${1 + Math.floor(i / 4)}].${"xyzw"[i % 4]}`;
  }

  get scalars(): readonly ScalarUse[] {
    return this.#scalars;
  }

  list(): Binding[] {
    return this.#shown.flatMap((s) =>
      range(s.parts).map((p) => ({
        buffer: s.buffer,
        write: s.write,
        offset: s.start + p * s.window,
        bytes: Math.min(s.window, s.bytes - p * s.window),
      })),
    );
  }

  /** Declarations of all bindings; call it last, when all scalars are known. */
  declare(): string {
    const lines: string[] = [];
    if (this.helpers.useF16 || this.#shown.some((s) => s.kind === "f16")) lines.push("enable f16;");
    for (const s of this.#shown) {
      const element = s.atomic ? "atomic<u32>" : ELEMENT[s.kind][s.wide ? 1 : 0];
      for (const p of range(s.parts)) {
        const n = s.first + p;
        lines.push(
          `@group(0) @binding(${n}) var<storage, ${s.write ? "read_write" : "read"}> data${n}: array<${element}>;`,
        );
      }
    }
    const words = 1 + ceilDiv(this.#scalars.length, 4);
    lines.push(`@group(0) @binding(${this.count}) var<uniform> P: array<vec4<u32>, ${words}>;`);
    return lines.join("\n");
  }

  /** An expression for the element at `address` (a u32 expression), in the operand's compute type. */
  load(access: Access, address: string): string {
    const { shown } = access;
    return this.#decode(access.operand.dtype, shown, this.#read(shown, address), address, 1);
  }

  /** The four elements from `address`, a multiple of 4, of an access whose mode is "vector". */
  loadFour(access: Access, address: string): string {
    const { shown } = access;
    if (shown.wide)
      return this.#decode(access.operand.dtype, shown, this.#element(shown, address, 4), address, 4);
    const elements = range(4).map((c) => this.load(access, c === 0 ? address : `${address} + ${c}u`));
    return `vec4<${wgslOf(access.operand.dtype)}>(${elements.join(", ")})`;
  }

  /** `value`, one or four floats that were loaded through `access`, as `f16`, rounded to nearest. */
  toF16(access: Access, value: string, width: Width): string {
    if (access.shown.kind !== "f16") return this.helpers.call("nearestF16", width, [value]);
    return width === 1 ? `f16(${value})` : `vec4<f16>(${value})`; // it was half precision before
  }

  /** The statement that stores `value`, of the operand's compute type. */
  store(access: Access, address: string, value: string): string {
    const { shown } = access;
    const bits = this.#encode(access.operand.dtype, shown, value, 1);
    if (shown.atomic) {
      const word = (fn: string, x: string): string => this.#writeCall(shown, address, fn, x);
      return `{ let at = (${address}) & 1u; ${word("atomicAnd", "0xffff0000u >> (at * 16u)")} ${word("atomicOr", `(${bits}) << (at * 16u)`)} }`;
    }
    return this.#write(shown, address, 1, bits);
  }

  /** The statement that stores four values from `address`, a multiple of 4, of an access whose mode is "vector". */
  storeFour(access: Access, address: string, value: string): string {
    const { shown } = access;
    if (shown.wide)
      return this.#write(shown, address, 4, this.#encode(access.operand.dtype, shown, value, 4));
    return range(4)
      .map((c) => this.store(access, c === 0 ? address : `${address} + ${c}u`, `${value}.${"xyzw"[c]}`))
      .join(" ");
  }

  #decode(dtype: DType, shown: Shown, raw: string, address: string, width: Width): string {
    const T = (t: string): string => (width === 1 ? t : `vec4<${t}>`);
    switch (shown.kind) {
      case "f16":
        return `${T("f32")}(${raw})`;
      case "pair": {
        const helper = dtype === "bf16" ? "wideBf16" : "wideF16";
        return this.helpers.call(helper, width, width === 1 ? [raw, address] : [raw]);
      }
      default:
        if (dtype === "bool") return `(${raw} != ${T("u32")}())`;
        return shown.kind === dtype ? raw : `bitcast<${T(dtype)}>(${raw})`;
    }
  }

  #encode(dtype: DType, shown: Shown, value: string, width: Width): string {
    const T = (t: string): string => (width === 1 ? t : `vec4<${t}>`);
    if (dtype === "f16" || dtype === "bf16") {
      const bits = this.helpers.call(dtype === "bf16" ? "bf16Bits" : "f16Bits", width, [value]);
      const words = width === 1 ? bits : this.helpers.call("packHalves", 4, [bits]);
      if (shown.kind === "pair") return words;
      return width === 1 ? `bitcast<vec2<f16>>(${words}).x` : `bitcast<vec4<f16>>(${words})`;
    }
    if (dtype === "bool") return `${T("u32")}(${value})`;
    return shown.kind === dtype ? value : `bitcast<${T(shown.kind)}>(${value})`;
  }

  /** The stored word or element that holds element `address`. */
  #read(shown: Shown, address: string): string {
    if (!shown.wide) return this.#element(shown, address, 1);
    const four = this.#element(shown, address, 4);
    return shown.kind === "pair" ? `${four}[((${address}) / 2u) & 1u]` : `${four}[(${address}) & 3u]`;
  }

  /** Array elements of one WGSL value: two halves to a word; four elements where four are read. */
  #perElement(shown: Shown, width: Width): number {
    return width === 4 ? 4 : shown.kind === "pair" ? 2 : 1;
  }

  /** The array element that holds element `address`, from the binding that shows it. */
  #element(shown: Shown, address: string, width: Width): string {
    const per = this.#perElement(shown, width);
    const read = (n: number, at: string): string =>
      shown.atomic ? `atomicLoad(&data${n}[${at}])` : `data${n}[${at}]`;
    const at = per === 1 ? address : `(${address}) / ${per}u`;
    if (shown.parts === 1) return read(shown.first, at);
    return `${this.#partsReader(shown, width, read)}(${at})`;
  }

  readonly #functions = new Map<string, string>();

  /** A function that reads one array element, looking for the binding that shows it. */
  #partsReader(shown: Shown, width: Width, read: (n: number, at: string) => string): string {
    const per = this.#perElement(shown, width);
    const span = shown.window / (BYTES_OF_KIND[shown.kind] * per);
    const name = `part${shown.first}`;
    const element = shown.atomic ? "u32" : ELEMENT[shown.kind][width === 4 ? 1 : 0];
    // one exit: drivers turn early returns into costly control flow
    const cases = range(shown.parts).map((p) => {
      const value = `{ v = ${read(shown.first + p, p === 0 ? "i" : `i - ${p * span}u`)}; }`;
      return p === shown.parts - 1 ? value : `if (i < ${(p + 1) * span}u) ${value} else `;
    });
    this.#functions.set(
      name,
      `fn ${name}(i: u32) -> ${element} { var v = ${element}(); ${cases.join("")} return v; }`,
    );
    return name;
  }

  /** Functions that loads call. */
  functions(): string {
    return [...this.#functions.values()].join("\n");
  }

  #write(shown: Shown, address: string, width: Width, value: string): string {
    const per = this.#perElement(shown, width);
    const at = per === 1 ? address : `(${address}) / ${per}u`;
    return this.#perPart(shown, at, per, (n, i) => `data${n}[${i}] = ${value};`);
  }

  #writeCall(shown: Shown, address: string, fn: string, value: string): string {
    return this.#perPart(shown, `(${address}) / 2u`, 2, (n, i) => `${fn}(&data${n}[${i}], ${value});`);
  }

  #perPart(shown: Shown, at: string, per: number, statement: (n: number, at: string) => string): string {
    if (shown.parts === 1) return statement(shown.first, at);
    const span = shown.window / (BYTES_OF_KIND[shown.kind] * per);
    return range(shown.parts)
      .map((p) => {
        const body = `{ ${statement(shown.first + p, `${at} - ${p * span}u`)} }`;
        return p === shown.parts - 1 ? body : `if (${at} < ${(p + 1) * span}u) ${body} else `;
      })
      .join("");
  }
}

const BYTES_OF_KIND: { readonly [K in Kind]: number } = { f32: 4, i32: 4, u32: 4, f16: 2, pair: 2 };

function wgslOf(dtype: DType): string {
  return dtype === "f16" || dtype === "bf16" ? "f32" : dtype;
}

function accessOf(use: Use, shown: Shown): Access {
  const { operand } = use;
  return {
    operand,
    shown,
    mode: modeOf(use),
    offset: operand.view.offset - shown.start / BYTES[operand.dtype],
  };
}

/** `offset + Σ index·stride` over the axes `[from, to)` that have an index, modulo 2^32 (strides may be negative). */
export function address(
  strides: readonly number[],
  indices: readonly string[],
  from: number,
  to: number,
  start: string | number,
): string {
  const terms = typeof start === "number" ? (start === 0 ? [] : [literal(start, "u32")]) : [start];
  for (let d = from; d < Math.min(to, strides.length); d++) {
    const stride = strides[d]!;
    if (stride === 0 || indices[d] === undefined) continue;
    terms.push(stride === 1 ? indices[d]! : `${indices[d]} * ${literal(stride, "u32")}`);
  }
  return terms.length === 0 ? "0u" : terms.join(" + ");
}

/** The condition that the indices of axes `[from, to)` are valid, or undefined where they always are. */
export function condition(
  operand: Operand,
  lengths: readonly number[],
  indices: readonly string[],
  from: number,
  to: number,
): string | undefined {
  const { valid } = operand.view;
  if (!valid) return undefined;
  const tests: string[] = [];
  for (let d = from; d < Math.min(to, valid.length); d++) {
    const range = valid[d];
    if (!range || (range[0] <= 0 && range[1] >= lengths[d]!)) continue;
    const low = Math.max(range[0], 0);
    const count = Math.max(0, Math.min(range[1], lengths[d]!) - low);
    tests.push(low === 0 ? `${indices[d]} < ${count}u` : `${indices[d]} - ${low}u < ${count}u`);
  }
  return allOf(tests);
}
