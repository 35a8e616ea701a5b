/** Quantized weights: their nodes, and their numbers in primitives: shifts, masks, a choice among sixteen, and a product. */
import { checkQuantized, NF4, type Quantization } from "@tiedlora/kernels";
import { add, binary, broadcastTo, cast, constant, gather } from "../build.ts";
import { iota, mul, reshape, sub, where } from "../build.ts";
import { Node } from "../graph.ts";

/** The numbers [..., out, in], f32, of a weight of the given words, scales and biases; see `Quantization`. */
export function dequantize(how: Quantization, words: Node, scales: Node, ...biases: Node[]): Node {
  const shape = checkQuantized("dequantize", how, words, scales, ...biases);
  const { bits, group, table } = how; // in one order: they are part of a program's key
  return new Node("dequantize", { bits, group, table }, [words, scales, ...biases], shape, "f32");
}

/** A node of `dequantize` in primitives. */
export function composeDequantize({ attrs, inputs, shape }: Node<"dequantize">): Node {
  const [words, scales, biases] = inputs;
  const { bits, group, table } = attrs;
  const apart = [...words.shape, 32 / bits];
  const shift = cast(mul(iota(apart, words.shape.length), constant(bits, "i32")), "u32");
  const word = broadcastTo(reshape(words, [...words.shape, 1]), apart);
  const q = binary("and", binary("shr", word, shift), constant(2 ** bits - 1, "u32"));
  const offset = constant(table === "signed" ? 2 ** (bits - 1) : 0, "f32");
  const code = table === "nf4" ? choose(q, NF4) : sub(cast(q, "f32"), offset);
  const ofGroup = (x: Node): Node => reshape(cast(x, "f32"), [...x.shape, 1]);
  const scaled = mul(reshape(code, [...scales.shape, group]), ofGroup(scales));
  return reshape(biases ? add(scaled, ofGroup(biases)) : scaled, shape);
}

/** numbers[q], by the bits of q. */
function choose(q: Node, numbers: readonly number[]): Node {
  if (numbers.length === 1) return constant(numbers[0]!, "f32");
  const half = numbers.length / 2;
  const isLow = binary("eq", binary("and", q, constant(half, "u32")), constant(0, "u32"));
  return where(isLow, choose(q, numbers.slice(0, half)), choose(q, numbers.slice(half)));
}

/** Rows of a quantized table [rows, cols]: only these are dequantized. A row out of range is NaN, as its scale is. */
export function gatherRows({ attrs, inputs }: Node<"dequantize">, index: Node): Node {
  const [words, scales, ...biases] = inputs.map((x) => gather(x, index)) as [Node, Node, ...Node[]];
  return dequantize(attrs, words, scales, ...biases);
}
