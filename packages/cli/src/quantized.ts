/** In which form weights are quantized while a model is loaded for an adapter, and what is said about quantized weights. */
import { type Decoder, QUANTIZE_KINDS, type QuantizeKind } from "@tiedlora/models";
import { loadConfig } from "@tiedlora/models/node";
import * as nn from "@tiedlora/nn";
import { type Output, paint } from "./output.ts";

/** What --quantize can be: a form of weights, or none. */
export type Quantize = QuantizeKind | "none";

export const QUANTIZE_NAMES: readonly Quantize[] = [...QUANTIZE_KINDS, "none"];

/** What --quantize does, for the help of all commands that have it. */
export const QUANTIZE_ABOUT: string =
  "keep the weights of linear layers in 4 bits (nf4) or 8 (int8), quantized while they are loaded; nf4+int8 also keeps embedding and " +
  "head in 8, also of a model that bitsandbytes has quantized; models that are quantized already take no other form (default: as in the training of the given adapter, or none)";

/** The form as an option of `loadModel`. */
export const quantizeOption = (quantize: Quantize | undefined): { readonly quantize?: QuantizeKind } =>
  quantize === undefined || quantize === "none" ? {} : { quantize };

/**
 * The form in which the weights in `directory` are quantized for an adapter that was trained on weights in the form `trainedOn`, as its
 * files say: as `given`, and otherwise as in training, which is said.
 */
export async function quantizeFor(
  directory: string,
  given: Quantize | undefined,
  trainedOn: string | undefined,
  output: Output,
): Promise<Quantize | undefined> {
  const form = QUANTIZE_KINDS.find((kind) => kind === trainedOn);
  if (form === undefined || form === given) return given;
  const note = (text: string): void => output.info(`${paint("yellow", "note:")} the adapter was trained on weights quantized to ${form}${text}`); // prettier-ignore
  if (given !== undefined) {
    note(given === "none" ? "; these are not quantized, so answers may be worse" : `; these are quantized to ${given}, so answers may be worse`); // prettier-ignore
    return given;
  }
  // config.json says of such a directory how it is quantized: it is then what the adapter was trained on, or has its own form
  const { raw } = await loadConfig(directory);
  if ("quantization" in raw || "quantization_config" in raw) {
    const stored = raw["quantization_config"] as { readonly quant_method?: unknown } | undefined;
    if (form !== "nf4+int8" || stored?.quant_method !== "bitsandbytes") return undefined;
  }
  note(", so these are quantized, too (--quantize none leaves them as they are)");
  return form;
}

/** How many matrices are quantized, to what, and what they take; null if none is. */
export function describeQuantized(model: Decoder): string | null {
  const matrices = model.parameters().filter(({ shape }) => shape.length > 1);
  const quantized = matrices.filter((parameter) => parameter instanceof nn.QuantizedParameter);
  if (quantized.length === 0) return null;
  const forms = new Map<string, number>();
  for (const { quantization } of quantized) {
    const form = quantization.table === "nf4" ? "nf4" : `${quantization.bits} bits`;
    forms.set(form, (forms.get(form) ?? 0) + 1);
  }
  const bytes = quantized.flatMap((one) => nn.memoryOf(one)).reduce((sum, one) => sum + one.storage.buffer.bytes, 0); // prettier-ignore
  const kinds = [...forms].map(([form, count]) => `${count} in ${form}`).join(", ");
  const others = matrices.length - quantized.length;
  return `quantized matrices: ${kinds}, ${(bytes / 2 ** 20).toFixed(1)} MiB; ${others} others are not`;
}
