/**
 * The WGSL of loads and stores: converts between the numbers that kernels compute with and the array elements of a buffer as
 * it is shown.
 */
import type { DType } from "@tiedlora/kernels";
import type { Width } from "./arithmetic.ts";
import type { Helpers } from "./helpers.ts";
import type { BoundOperand, Kind, Shown } from "./shown.ts";
import { range } from "./target.ts";

/** The WGSL type of one element, and of four. */
const ELEMENT: { readonly [K in Kind]: readonly [one: string, four: string] } = {
  f32: ["f32", "vec4<f32>"],
  i32: ["i32", "vec4<i32>"],
  u32: ["u32", "vec4<u32>"],
  f16: ["f16", "vec4<f16>"],
  pair: ["u32", "vec2<u32>"],
};

const BYTES_OF_KIND: { readonly [K in Kind]: number } = { f32: 4, i32: 4, u32: 4, f16: 2, pair: 2 };

/** The type that the array of a buffer is declared with. */
export const elementType = ({ atomic, kind, wide }: Shown): string =>
  atomic ? "atomic<u32>" : ELEMENT[kind][wide ? 1 : 0];

/** The WGSL type `t`, or a vector of four of it. */
const times = (width: Width, t: string): string => (width === 1 ? t : `vec4<${t}>`);

export class Elements {
  readonly #helpers: Helpers;
  /** By name: the definitions of functions that find the binding that shows an element. */
  readonly #functions = new Map<string, string>();

  constructor(helpers: Helpers) {
    this.#helpers = helpers;
  }

  /** The definitions of the functions that loads call. */
  functions(): string {
    return [...this.#functions.values()].join("\n");
  }

  /** An expression for the element at `address` (a u32 expression), in the operand's compute type. */
  load({ operand, shown }: BoundOperand, address: string): string {
    return this.#decode(operand.dtype, shown, this.#read(shown, address), address, 1);
  }

  /** The four elements from `address`, a multiple of 4, of an operand whose mode is "vector". */
  loadFour(bound: BoundOperand, address: string): string {
    const { operand, shown } = bound;
    if (shown.wide) return this.#decode(operand.dtype, shown, this.#element(shown, address, 4), address, 4);
    const elements = range(4).map((c) => this.load(bound, c === 0 ? address : `${address} + ${c}u`));
    return `vec4<${wgslOf(operand.dtype)}>(${elements.join(", ")})`;
  }

  /** `value`, one or four floats that were loaded from `bound`, as `f16`, rounded to nearest. */
  toF16(bound: BoundOperand, value: string, width: Width): string {
    if (bound.shown.kind !== "f16") return this.#helpers.call("nearestF16", width, [value]);
    return `${times(width, "f16")}(${value})`; // it was half precision before
  }

  /** The statement that stores `value`, of the operand's compute type. */
  store({ operand, shown }: BoundOperand, address: string, value: string): string {
    const bits = this.#encode(operand.dtype, shown, value, 1);
    if (!shown.atomic) return this.#write(shown, address, 1, bits);
    const word = (fn: string, x: string): string =>
      this.#perPart(shown, `(${address}) / 2u`, 2, (n, i) => `${fn}(&data${n}[${i}], ${x});`);
    return `{ let at = (${address}) & 1u; ${word("atomicAnd", "0xffff0000u >> (at * 16u)")} ${word("atomicOr", `(${bits}) << (at * 16u)`)} }`;
  }

  /** The statement that stores four values from `address`, a multiple of 4, of an operand whose mode is "vector". */
  storeFour(bound: BoundOperand, address: string, value: string): string {
    const { operand, shown } = bound;
    if (shown.wide) return this.#write(shown, address, 4, this.#encode(operand.dtype, shown, value, 4));
    return range(4)
      .map((c) => this.store(bound, c === 0 ? address : `${address} + ${c}u`, `${value}.${"xyzw"[c]}`))
      .join(" ");
  }

  // --- conversion of numbers from and to what is stored

  #decode(dtype: DType, shown: Shown, raw: string, address: string, width: Width): string {
    switch (shown.kind) {
      case "f16":
        return `${times(width, "f32")}(${raw})`;
      case "pair": {
        const helper = dtype === "bf16" ? "wideBf16" : "wideF16";
        return this.#helpers.call(helper, width, width === 1 ? [raw, address] : [raw]);
      }
      default:
        if (dtype === "bool") return `(${raw} != ${times(width, "u32")}())`;
        return shown.kind === dtype ? raw : `bitcast<${times(width, dtype)}>(${raw})`;
    }
  }

  #encode(dtype: DType, shown: Shown, value: string, width: Width): string {
    if (dtype === "f16" || dtype === "bf16") {
      const bits = this.#helpers.call(dtype === "bf16" ? "bf16Bits" : "f16Bits", width, [value]);
      const words = width === 1 ? bits : this.#helpers.call("packHalves", 4, [bits]);
      if (shown.kind === "pair") return words;
      return width === 1 ? `bitcast<vec2<f16>>(${words}).x` : `bitcast<vec4<f16>>(${words})`;
    }
    if (dtype === "bool") return `${times(width, "u32")}(${value})`;
    return shown.kind === dtype ? value : `bitcast<${times(width, shown.kind)}>(${value})`;
  }

  // --- array elements, in the bindings that show them

  /** The stored word or element that holds element `address`. */
  #read(shown: Shown, address: string): string {
    if (!shown.wide) return this.#element(shown, address, 1);
    const four = this.#element(shown, address, 4);
    return shown.kind === "pair" ? `${four}[((${address}) / 2u) & 1u]` : `${four}[(${address}) & 3u]`;
  }

  /** The array element that holds element `address`, from the binding that shows it. */
  #element(shown: Shown, address: string, width: Width): string {
    const at = arrayIndex(shown, address, width);
    if (shown.parts === 1) return readOf(shown, shown.first, at);
    return `${this.#partsReader(shown, width)}(${at})`;
  }

  /** A function that reads one array element, looking for the binding that shows it. */
  #partsReader(shown: Shown, width: Width): string {
    const span = spanOf(shown, perElement(shown, width));
    const name = `part${shown.first}`;
    const element = shown.atomic ? "u32" : ELEMENT[shown.kind][width === 4 ? 1 : 0];
    // one exit: drivers turn early returns into costly control flow
    const cases = range(shown.parts).map((p) => {
      const value = `{ v = ${readOf(shown, shown.first + p, p === 0 ? "i" : `i - ${p * span}u`)}; }`;
      return p === shown.parts - 1 ? value : `if (i < ${(p + 1) * span}u) ${value} else `;
    });
    this.#functions.set(
      name,
      `fn ${name}(i: u32) -> ${element} { var v = ${element}(); ${cases.join("")} return v; }`,
    );
    return name;
  }

  #write(shown: Shown, address: string, width: Width, value: string): string {
    const at = arrayIndex(shown, address, width);
    return this.#perPart(shown, at, perElement(shown, width), (n, i) => `data${n}[${i}] = ${value};`);
  }

  /** A statement on the array element `at`, in the binding that shows it. */
  #perPart(shown: Shown, at: string, per: number, statement: (n: number, at: string) => string): string {
    if (shown.parts === 1) return statement(shown.first, at);
    const span = spanOf(shown, per);
    return range(shown.parts)
      .map((p) => {
        const body = `{ ${statement(shown.first + p, `${at} - ${p * span}u`)} }`;
        return p === shown.parts - 1 ? body : `if (${at} < ${(p + 1) * span}u) ${body} else `;
      })
      .join("");
  }
}

/** Elements of the operand in one array element: four if four are read at once, two if halves share a word, otherwise one. */
function perElement({ kind }: Shown, width: Width): number {
  return width === 4 ? 4 : kind === "pair" ? 2 : 1;
}

/** Array elements in one binding. */
function spanOf({ window, kind }: Shown, per: number): number {
  return window / (BYTES_OF_KIND[kind] * per);
}

function arrayIndex(shown: Shown, address: string, width: Width): string {
  const per = perElement(shown, width);
  return per === 1 ? address : `(${address}) / ${per}u`;
}

/** An array element of binding `n`. */
function readOf({ atomic }: Shown, n: number, at: string): string {
  return atomic ? `atomicLoad(&data${n}[${at}])` : `data${n}[${at}]`;
}

function wgslOf(dtype: DType): string {
  return dtype === "f16" || dtype === "bf16" ? "f32" : dtype;
}
