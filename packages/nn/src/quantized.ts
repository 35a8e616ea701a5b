/** Quantized weights: frozen parameters that are kept as codes of four or eight bits, with a scale for each group of numbers. */
import {
  checkQuantization,
  type Device,
  type DType,
  Parameter,
  type Quantization,
  Tensor,
  type TypedArray,
} from "@tiedlora/core";
import { checkTensors, deviceOf, dequantize as dequantizeNode, refuse } from "@tiedlora/core/extend";

/** A quantized weight on the host, as files hold it. */
export interface QuantizedValues extends Quantization {
  /** [..., out, in]. */
  readonly shape: readonly number[];
  /** The codes, in u32 words. */
  readonly words: Uint32Array;
  /** One per group: f32, or bit patterns of f16 or bf16. */
  readonly scales: ScaleValues;
  /** One per group, of the type of the scales. Without them, all are 0. */
  readonly biases?: ScaleValues;
}

/** Numbers in f32, or bit patterns in half precision, with their type. */
export type ScaleValues = Float32Array | { readonly values: Uint16Array; readonly dtype: "f16" | "bf16" };

/**
 * The numbers [..., out, in] (f32) of a quantized weight: words [..., out, in · bits / 32] (u32), scales and biases
 * [..., out, in / group] (f32, f16 or bf16). As the second factor of a product, and as a table whose rows are taken, the weight is
 * never in memory as a whole. No gradient passes to words, scales or biases.
 */
export function dequantize(
  how: Quantization,
  words: Tensor,
  scales: Tensor,
  biases: Tensor | null = null,
): Tensor {
  const parts = biases ? [words, scales, biases] : [words, scales];
  checkTensors("dequantize", parts);
  const [w, s, ...b] = parts.map(({ node }) => node);
  return new Tensor(dequantizeNode(how, w!, s!, ...b), deviceOf(parts));
}

/**
 * A weight [..., out, in] that is kept quantized. As a tensor it has its dequantized numbers, in f32, so that it can stand
 * wherever a parameter is read: in a Linear or an Embedding, under adapters, in merging. It is frozen.
 */
export class QuantizedParameter extends Parameter {
  /** How the numbers are stored. */
  readonly quantization: Quantization;
  /** The codes: u32 [..., out, in · bits / 32]. */
  readonly words: Parameter;
  /** [..., out, in / group]. */
  readonly scales: Parameter;
  /** As the scales, or null. */
  readonly biases: Parameter | null;
  #node: Tensor["node"];

  /** A weight around parameters that hold its parts, e.g. loaded ones. They become frozen. */
  constructor(how: Quantization, words: Parameter, scales: Parameter, biases: Parameter | null = null) {
    const { node, device } = dequantize(how, words, scales, biases);
    super(words.storage, node.shape, node.dtype, device!);
    this.quantization = how;
    this.words = words;
    this.scales = scales;
    this.biases = biases;
    this.#node = node;
    for (const part of memoryOf(this)) part.requiresGrad = false;
    const set = (on: unknown): void => this.#refuse(on);
    Object.defineProperty(this, "requiresGrad", { get: () => false, set });
  }

  /** A weight with the given values, on a device. */
  static fromValues(device: Device, values: QuantizedValues, name = "parameter"): QuantizedParameter {
    const { shape, bits, group, table, words, scales, biases } = values;
    const [rows, columns] = [shape.slice(0, -1), shape.at(-1) ?? 0];
    checkQuantization(name, values, columns);
    const perGroup = (from: ScaleValues, part: string): Parameter => {
      const [numbers, dtype]: [TypedArray, DType] =
        "dtype" in from ? [from.values, from.dtype] : [from, "f32"];
      return Parameter.from(device, numbers, [...rows, columns / group], dtype, `${name}.${part}`);
    };
    const held = Parameter.from(device, words, [...rows, (columns * bits) / 32], "u32", name);
    const parts = [perGroup(scales, "scales"), biases ? perGroup(biases, "biases") : null] as const;
    return new QuantizedParameter({ bits, group, table }, held, ...parts);
  }

  override get node(): Tensor["node"] {
    const parts = memoryOf(this).map((part) => part.node);
    if (parts.some((part, i) => part !== this.#node.inputs[i])) {
      const [words, scales, ...biases] = parts;
      this.#node = dequantizeNode(this.quantization, words!, scales!, ...biases);
    }
    return this.#node;
  }

  /** The dequantized numbers, which are not kept on the device. */
  override data(): Promise<TypedArray> {
    return new Tensor(this.node, this.device).data();
  }

  override get name(): string {
    return this.words.name;
  }
  override set name(name: string) {
    this.words.name = name;
    this.scales.name = `${name}.scales`;
    if (this.biases) this.biases.name = `${name}.biases`;
  }

  override set(): never {
    throw new Error(
      `${this.name} is quantized and keeps its values; replace it by a Parameter made of ${this.name}.data()`,
    );
  }

  #refuse(on: unknown): void {
    if (on !== true) return;
    throw new Error(
      `${this.name} is quantized, hence frozen; train an adapter on it, or unfreeze only the others`,
    );
  }
}

/** The parameters in whose memory a parameter is kept: itself; of a quantized one, its words, scales and biases. */
export function memoryOf(parameter: Parameter): readonly Parameter[] {
  if (!(parameter instanceof Parameter))
    refuse("memoryOf", parameter, "parameter", "one made by Parameter.from");
  if (!(parameter instanceof QuantizedParameter)) return [parameter];
  const { words, scales, biases } = parameter;
  return biases ? [words, scales, biases] : [words, scales];
}
