/**
 * WGSL that reads numbers of a quantized weight by their index in it, one at a time or four neighbors from a multiple of four:
 * the code from its word, then what it stands for, times the scale of its group, plus the bias.
 */
import { codeValue, type Operand, type QuantizedStorage } from "@tiedlora/kernels";
import type { Width } from "../arithmetic.ts";
import type { Bindings } from "../bindings.ts";
import type { Use } from "../shown.ts";
import { range } from "../target.ts";

/** What is bound for a quantized weight: its words, scales and, if there are any, biases. */
export interface QuantizedUses {
  readonly quantized: QuantizedStorage;
  readonly words: Use;
  readonly scales: Use;
  readonly biases: Use | null;
}

/** The requests for bindings of a quantized operand. */
export function quantizedUses(operand: Operand, quantized: QuantizedStorage): QuantizedUses {
  const { bits, group, groups, scales, biases } = quantized;
  const perGroup = (of: Operand): Use => ({ operand: of, write: false, lengths: [groups] });
  const words = { buffer: operand.buffer, dtype: operand.dtype, view: { offset: 0, strides: [1] } };
  return {
    quantized,
    words: { operand: words, write: false, lengths: [(groups * group * bits) / 32] },
    scales: perGroup(scales),
    biases: biases ? perGroup(biases) : null,
  };
}

/** Whether kernels can read a quantized operand: its view does not move, and reads no padding. */
export const isQuantizedRendered = ({ view }: Operand): boolean => !view.moving && !view.valid;

/** The functions `{name}q1(i)` and `{name}q4(i)`, which read one number and four neighbors. */
export function quantizedFunctions(name: string, uses: QuantizedUses, bindings: Bindings): string {
  const { quantized } = uses;
  const { bits, group, table } = quantized;
  const perWord = 32 / bits;
  const load = ({ operand }: Use, at: string): string => {
    const start = bindings.start(operand);
    return bindings.elements.load(bindings.of(operand), start === undefined ? at : `${at} + ${start}`);
  };
  const value = (codes: string, width: Width): string => {
    const type = width === 1 ? "f32" : "vec4<f32>";
    if (table !== "nf4")
      return table === "signed" ? `${type}(${codes}) - ${2 ** (bits - 1)}.0` : `${type}(${codes})`;
    if (width === 1) return `${name}Codes[${codes}]`;
    return `vec4<f32>(${range(4)
      .map((c) => `${name}Codes[(${codes})[${c}]]`)
      .join(", ")})`;
  };
  const define = (width: Width): string => {
    const type = width === 1 ? "f32" : "vec4<f32>";
    const shift = `(i % ${perWord}u) * ${bits}u`;
    const shifts = `vec4<u32>(${shift}) + vec4<u32>(${range(4)
      .map((c) => `${c * bits}u`)
      .join(", ")})`;
    const codes =
      width === 1
        ? `(word >> (${shift})) & ${2 ** bits - 1}u`
        : `(vec4<u32>(word) >> (${shifts})) & vec4<u32>(${2 ** bits - 1}u)`;
    const lines = [
      `let word = ${load(uses.words, `i / ${perWord}u`)};`,
      `let codes = ${codes};`,
      `let scale = ${load(uses.scales, `i / ${group}u`)};`,
      `let number = (${value("codes", width)}) * scale;`,
      uses.biases ? `return number + ${load(uses.biases, `i / ${group}u`)};` : "return number;",
    ];
    return `fn ${name}q${width}(i: u32) -> ${type} {\n${lines.map((line) => `  ${line}`).join("\n")}\n}`;
  };
  const numbers = range(2 ** bits).map((q) => codeValue(quantized, q));
  const codes =
    table === "nf4"
      ? [`const ${name}Codes = array<f32, 16>(${numbers.map((x) => `${x}f`).join(", ")});`]
      : [];
  return [...codes, define(1), define(4)].join("\n");
}
