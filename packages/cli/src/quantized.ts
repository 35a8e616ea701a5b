/** What is said about quantized weights. */
import type { Decoder } from "@tiedlora/models";
import * as nn from "@tiedlora/nn";

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
