/** The methods by name: the configurations of the Tied-LoRA paper and further methods, all from one table. */
import { checkOptions } from "@tiedlora/core/arguments";
import { checkNotNull, type CommonOptions, type Method, type PlainMethod } from "../method.ts";
import { familyRate } from "./rates.ts";
import {
  type Declarations,
  ENTRIES,
  FAMILY_OPTIONS,
  type MethodName,
  type PlainMethodName,
  TABLE,
} from "./table.ts";
import { familyMember, type FactorName, type TiedLoraOptions } from "./tied-lora.ts";

const TIED_LORA_OPTIONS = [...FAMILY_OPTIONS, "trained", "name"];

/**
 * Declares any member of the Tied-LoRA family: 15 sets of trained factors, tied or not. Throws if no factor is trained, or for an
 * invalid option.
 */
export function tiedLora(options: TiedLoraOptions): PlainMethod<FactorName> {
  checkOptions("tiedLora", options, '{ trained: ["B", "A"] }', TIED_LORA_OPTIONS);
  checkNotNull("tiedLora", options);
  return familyMember(options, familyRate);
}

export type Methods = Declarations & { readonly tiedLora: typeof tiedLora };

/**
 * The functions that declare methods. `lora` to `tl6` are the configurations of the Tied-LoRA paper; the trained factors of TL1 to
 * TL4 are our reading of it. `tiedLora` offers all 15 sets of trained factors.
 *
 * | name | trained | tied | starts at zero | trainable (L layers, width d) |
 * |---|---|---|---|---|
 * | lora | B, A | nothing | B | 4Ldr |
 * | vera | v, u | A, B | v | L(r + 3d) |
 * | tl1 | A | A, B | A | dr |
 * | tl2 | v, A | A, B | v | dr + 3dL |
 * | tl3 | u, B | A, B | B | (L + 3d)r |
 * | tl4 | v, u, B | A, B | B | (L + 3d)r + 3dL |
 * | tl5 | B, A | A, B | B | 4dr |
 * | tl6 | v, B, u, A | A, B | B | (L + 4d)r + 3dL |
 */
export const methods: Methods = {
  ...(Object.fromEntries(Object.entries(TABLE).map(([key, { declare }]) => [key, declare])) as Declarations),
  tiedLora,
};

export type { MethodName, PlainMethodName } from "./table.ts";

/** The methods of the library, by the names of the command line. */
export const METHOD_NAMES: readonly MethodName[] = ENTRIES.map(({ name }) => name);

/** Declares a method by its name. Throws for an unknown name; the error lists all names. */
export function methodByName(name: PlainMethodName, options?: CommonOptions): PlainMethod;
export function methodByName(name: string, options?: CommonOptions): Method;
export function methodByName(name: string, options: CommonOptions = {}): Method {
  const known = ENTRIES.find((entry) => entry.name === name);
  if (known === undefined)
    throw new Error(`there is no method "${name}"; expected one of ${METHOD_NAMES.join(", ")}`);
  return known.declare(options);
}
