/** Eight bits, symmetric: every group of a row is divided by a 127th of its largest magnitude and rounded. */
import { encodeGroups, groupProblem, packCodes, type QuantizedTensor, rowsOf } from "./form.ts";

const INT8_GROUP = 64;

/**
 * Quantizes a matrix [..., out, in] to whole numbers from -127 to 127, ties to even, with the f32 scale max|w| / 127 for every group. A value
 * that is not finite makes the scale of its group NaN or infinite.
 */
export function quantizeInt8(
  values: Float32Array,
  shape: readonly number[],
  group: number = INT8_GROUP,
): QuantizedTensor {
  const problem = groupProblem(rowsOf(shape).inputs, 8, group);
  if (problem !== null) throw new RangeError(`int8: ${problem}`);
  const codes = new Uint8Array(values.length);
  const scales = encodeGroups(values, group, (begin, largest) => {
    const scale = Math.fround(largest / 127);
    const usable = scale > 0 && Number.isFinite(scale);
    for (let i = begin; i < begin + group; i++)
      codes[i] = 128 + (usable ? clampedEven(values[i]! / scale) : 0);
    return scale;
  });
  return { shape, bits: 8, group, table: "signed", scaleDType: "f32", words: packCodes(codes, 8), scales };
}

/** The nearest whole number from -127 to 127; of two that are equally near, the even one. */
function clampedEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  const nearest = rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
  return Math.max(-127, Math.min(127, nearest));
}
