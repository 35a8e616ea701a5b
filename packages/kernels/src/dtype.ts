/**
 * Element types and arithmetic. `f16` and `bf16` are storage formats: they are widened to f32 when loaded, and arithmetic
 * on them gives f32. `f64` exists on the reference backend only.
 */
import { bf16ToF32, type DType, f16ToF32, f32ToBf16, f32ToF16 } from "@tiedlora/safetensors";

export {
  allocateArray,
  bf16ToF32,
  BYTES,
  decode,
  type DType,
  encode,
  f16ToF32,
  f32ToBf16,
  f32ToF16,
  type TypedArray,
  viewBytes,
} from "@tiedlora/safetensors";

/** The types that arithmetic is done in; f16 and bf16 are widened to f32. */
export type ComputeType = "f32" | "f64" | "i32" | "u32" | "bool";

/** The type that arithmetic on `dtype` is done in. */
export function computeType(dtype: DType): ComputeType {
  return dtype === "f16" || dtype === "bf16" ? "f32" : dtype;
}

/** Whether `dtype` holds floating-point numbers; only these have gradients. */
export function isFloat(dtype: DType): boolean {
  return dtype === "f32" || dtype === "f64" || dtype === "f16" || dtype === "bf16";
}

/** `value` as a tensor of `dtype` would hold it: rounded for floats, wrapped for integers. */
export function roundTo(dtype: DType, value: number): number {
  switch (dtype) {
    case "f32":
      return Math.fround(value);
    case "f64":
      return value;
    case "f16":
      return f16ToF32(f32ToF16(value));
    case "bf16":
      return bf16ToF32(f32ToBf16(value));
    case "i32":
      return value | 0;
    case "u32":
      return value >>> 0;
    case "bool":
      return value ? 1 : 0;
  }
}
