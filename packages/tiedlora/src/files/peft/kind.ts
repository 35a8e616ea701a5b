/** What a kind of peft's files is: an entry of the table in kinds.ts, and the parts that entries have in common. */
import type { Shape, Tensor } from "@tiedlora/core";
import type * as nn from "@tiedlora/nn";
import type { Adapter } from "../../adapter/adapter.ts";
import type { AdapterLayer } from "../../adapter/layer.ts";
import type { CommonOptions, Json, Method } from "../../method.ts";
import type { Reader } from "./config.ts";
import { PREFIX } from "./keys.ts";

/** A factor's tensor in a file. */
export interface Stored {
  readonly name: string;
  readonly shape: Shape;
  readonly parameter: nn.Parameter;
  /** The tensor to write. Default: the parameter's elements in the file's shape. */
  readonly write?: () => Tensor;
  /** The parameter's elements from the file's. Default: the same. */
  readonly read?: (values: Float32Array) => Float32Array;
  /** Sets the parameter from the file's elements, in place of `read`. */
  readonly set?: (values: Float32Array) => void;
}

/** Common options as a config of peft gives them; targets are whole paths. */
type Common = CommonOptions & { readonly target: readonly string[]; readonly rank: number };

export interface PeftKind {
  /** The name of the library's method. */
  readonly method: string;
  /** peft's name for the bias mode of adapted modules. */
  readonly bias: string;
  /** The field of the rank and its default; null if the method has no rank. */
  readonly rank: readonly [field: string, fallback: number] | null;
  /** Whether the config names no modules, as those of prompts. */
  readonly unnamed?: true;
  /** Names of modules that are adapted if target_modules is null. Default: peft's for the architecture. */
  readonly targets?: readonly string[];
  /** The field of the dropout probability; null if the method has none. */
  readonly dropout: string | null;
  /** Declares the method from the fields that only this kind has. Throws for settings with which something else is computed. */
  declare(fields: Reader, common: Common, file: string): Method;
  /** The fields that only this kind has, for writing. */
  fields(adapter: Adapter): Readonly<Record<string, Json>>;
  /** The seed that the config names in place of the frozen factors, for a file that does not hold them; null if it holds them. */
  readonly seed?: (fields: Reader) => number | null;
  /** The tensors of one adapted module, or of the whole adapter if `layer` is null. */
  tensors(layer: AdapterLayer | null, adapter: Adapter): readonly Stored[];
}

export const at = (layer: AdapterLayer, name: string): string => `${PREFIX}${layer.member.path}.${name}`;

export function plain(layer: AdapterLayer, factor: string, name: string, shape?: Shape): Stored {
  const parameter = layer.parameter(factor)!;
  return { name: at(layer, name), parameter, shape: shape ?? parameter.shape };
}

/** A matrix [rows, columns] of the adapter that the file holds transposed. */
export function transposed(layer: AdapterLayer, factor: string, name: string): Stored {
  const parameter = layer.parameter(factor)!;
  const [rows, columns] = parameter.shape as [number, number];
  return {
    name: at(layer, name),
    parameter,
    shape: [columns, rows],
    write: () => parameter.transpose(),
    read: (values) =>
      Float32Array.from(values, (_, i) => values[(i % columns) * rows + Math.floor(i / columns)]!),
  };
}

export const positive = (n: number): boolean => Number.isSafeInteger(n) && n >= 1;
export const COUNT = "an integer of at least 1";
