/** NF4: every block of a row is divided by its largest magnitude, and each quotient becomes the nearest of sixteen numbers. */
import { encodeGroups, groupProblem, packCodes, type QuantizedTensor, rowsOf } from "./form.ts";

/**
 * The middles between neighbors of the table, as bitsandbytes writes them: a number above the i-th gets a code above i, so that a number
 * in the middle gets the lower one.
 */
const MIDDLES = Float32Array.of(
  -0.8480964004993439,
  -0.6106329262256622,
  -0.4599952697753906,
  -0.33967943489551544,
  -0.23460740596055984,
  -0.13791173323988914,
  -0.045525018125772476,
  0.03979014977812767,
  0.1202552504837513,
  0.2035212516784668,
  0.2920137718319893,
  0.3893125355243683,
  0.5016634166240692,
  0.6427869200706482,
  0.8614784181118011,
  Infinity,
);

/** Steps of the table below from -1 to 1. */
const STEPS = 4096;

/** For each step of the interval from -1 to 1 a code that is at most one below those of the numbers in it. */
const START = Uint8Array.from({ length: STEPS + 1 }, (_, i) =>
  MIDDLES.findIndex((middle) => i / (STEPS / 2) - 1 - 1e-6 <= middle),
);

/** The group of bitsandbytes. */
const NF4_GROUP = 64;

/**
 * Quantizes a matrix [..., out, in] to NF4 as bitsandbytes does on a GPU: the quotients are products with the f32 reciprocal of the block's
 * largest magnitude. A block of zeros has the scale 0; a value that is not finite makes the scale of its block NaN or infinite.
 */
export function quantizeNf4(
  values: Float32Array,
  shape: readonly number[],
  group: number = NF4_GROUP,
): QuantizedTensor {
  const problem = groupProblem(rowsOf(shape).inputs, 4, group);
  if (problem !== null) throw new RangeError(`NF4: ${problem}`);
  const codes = new Uint8Array(values.length);
  const scales = encodeGroups(values, group, (begin, largest) => {
    if (largest === 0)
      codes.fill(7, begin, begin + group); // the code of 0
    else if (Number.isFinite(largest)) encodeBlock(values, codes, begin, begin + group, largest);
    return largest;
  });
  return { shape, bits: 4, group, table: "nf4", scaleDType: "f32", words: packCodes(codes, 4), scales };
}

function encodeBlock(
  values: Float32Array,
  codes: Uint8Array,
  begin: number,
  end: number,
  largest: number,
): void {
  const reciprocal = Math.fround(1 / largest);
  for (let i = begin; i < end; i++) {
    // The reciprocal of a number near the smallest is infinite; no quotient is beyond 1.
    const x = Math.max(-1, Math.min(1, Math.fround(values[i]! * reciprocal) || 0));
    let code = START[Math.floor((x + 1) * (STEPS / 2))]!;
    while (x > MIDDLES[code]!) code++;
    codes[i] = code;
  }
}
