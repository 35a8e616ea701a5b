/** Runs one case of an op record on a device and on the yardstick: its outputs, and the gradients of its inputs. */
import { type Device, type DType, grad, isFloat, realize, type Tensor } from "@tiedlora/core";
import fc from "fast-check";
import { type Coverage, firstDifference } from "./compare.ts";
import { choice } from "./generate/dims.ts";
import { permutation } from "./generate/views.ts";
import { prng } from "./prng.ts";
import { type InputSpec, isFloatSpec, type OpCase, type OpRecord, sample } from "./records/record.ts";
import type { Yardstick } from "./yardstick.ts";

/** How a case is varied: the data type, and the kind of view through which each input is seen. */
export interface Variation {
  readonly seed: number;
  readonly dtype: number;
  readonly views: readonly { readonly kind: number; readonly order: number }[];
}

export const variation: fc.Arbitrary<Variation> = fc.record({
  seed: fc.nat({ max: 1e6 }),
  dtype: choice,
  views: fc.array(fc.record({ kind: fc.nat({ max: 6 }), order: choice }), { minLength: 5, maxLength: 5 }),
});

/** A leaf, and the view of it that has the shape of the input. */
interface Input {
  readonly leaf: Tensor;
  readonly seen: Tensor;
}

/** The type and the values of one input. */
interface Drawn {
  readonly dtype: DType;
  readonly seed: number;
  /** Whether some of the values are NaN or infinite. */
  readonly special: boolean;
}

function draw(spec: InputSpec, i: number, how: Variation, dtypes: ReadonlySet<DType>): Drawn {
  const usable = spec.dtypes.filter((d) => dtypes.has(d));
  const dtype = usable[how.dtype % usable.length]!;
  const seed = how.seed + 31 * i;
  const special = isFloat(dtype) && spec.finite !== true && spec.domain === "any" && seed % 6 === 0;
  return { dtype, seed, special };
}

function leafTensor(
  device: Device,
  spec: InputSpec,
  shape: readonly number[],
  { dtype, seed, special }: Drawn,
): Tensor {
  const n = shape.reduce((a, d) => a * d, 1);
  const values = sample(spec.domain, dtype, n, seed);
  return tensorOf(device, special ? withSpecial(values, seed) : values, shape, dtype);
}

const SPECIAL = [NaN, Infinity, -Infinity];

/** Replaces some of the values by NaN or infinity. */
function withSpecial(values: readonly number[], seed: number): number[] {
  const random = prng(seed + 1);
  return values.map((x) => (random() < 0.03 ? SPECIAL[Math.floor(random() * SPECIAL.length)]! : x));
}

/** A tensor of any type from plain numbers. */
export function tensorOf(
  device: Device,
  values: readonly number[],
  shape: readonly number[],
  dtype: DType,
): Tensor {
  if (dtype === "i32") return device.tensor(Int32Array.from(values), { shape, dtype });
  if (dtype === "u32" || dtype === "bool") return device.tensor(Uint32Array.from(values), { shape, dtype });
  return device.tensor(Float32Array.from(values), { shape, dtype });
}

/** The input unchanged, permuted, flipped, cut out with a stride, broadcast and cut, or (where zeros are allowed) padded. */
function makeInput(
  device: Device,
  spec: InputSpec,
  { kind, order }: Variation["views"][number],
  drawn: Drawn,
): Input {
  const { shape } = spec;
  const leaf = (dims: readonly number[]): Tensor => leafTensor(device, spec, dims, drawn);
  const view = (dims: readonly number[], f: (x: Tensor) => Tensor): Input => {
    const x = leaf(dims);
    return { leaf: x, seen: f(x) };
  };
  switch (kind) {
    case 1: {
      const axes = permutation(order, shape.length);
      const stored = axes.map((axis) => shape[axis]!);
      return view(stored, (x) => x.permute(axes.map((_, i) => axes.indexOf(i))));
    }
    case 2:
      return view(shape, (x) => x.flip(shape.flatMap((_, i) => ((order >> i) & 1 ? [i] : []))));
    case 3:
      return view(
        shape.map((d) => 2 * d + 1),
        (x) => x.slice(...shape.map((d): [number, number, number] => [1, 1 + 2 * d, 2])),
      );
    case 4:
      return view(shape, (x) =>
        x
          .expand([3, ...shape])
          .narrow(0, order % 3, 1)
          .reshape(shape),
      );
    case 5: {
      if (spec.domain !== "any" || shape.some((d) => d < 3)) return view(shape, (x) => x);
      const inner = shape.map((d) => d - 2);
      return view(inner, (x) => x.pad(shape.map((): [number, number] => [1, 1])));
    }
    default:
      return view(shape, (x) => x);
  }
}

/** The outputs of a case on a device, and the gradients of a weighted sum of them for each float leaf. */
function build(
  device: Device,
  record: OpRecord,
  test: OpCase,
  how: Variation,
  dtypes: ReadonlySet<DType>,
): Tensor[] {
  const inputs = test.inputs.map((spec, i) =>
    makeInput(device, spec, how.views[i % 5]!, draw(spec, i, how, dtypes)),
  );
  const outputs = [test.build(inputs.map(({ seen }) => seen))].flat();
  if (record.gradient !== "yes") return outputs;
  const leaves = inputs.flatMap(({ leaf }, i) =>
    isFloatLeaf(leaf) && isFloatSpec(test.inputs[i]!) ? [leaf] : [],
  );
  const smooth = outputs.filter(isFloatLeaf);
  if (leaves.length === 0 || smooth.length === 0) return outputs;
  const random = prng(how.seed + 7);
  const terms = smooth.map((y) => {
    const weights = Float32Array.from({ length: y.size }, () => random() * 2 - 1);
    return y.mul(device.tensor(weights, { shape: y.shape })).sum();
  });
  return [...outputs, ...grad(terms.reduce((a, b) => a.add(b)), leaves)]; // prettier-ignore
}

const isFloatLeaf = ({ dtype }: Tensor): boolean => dtype !== "i32" && dtype !== "u32" && dtype !== "bool";

/** Whether a backend with these types can run the case. */
export function runnable(test: OpCase, dtypes: ReadonlySet<DType>): boolean {
  return (
    test.inputs.every((spec) => spec.dtypes.some((d) => dtypes.has(d))) &&
    (test.needs ?? []).every((d) => dtypes.has(d))
  );
}

/**
 * Throws unless the device's results are within the yardstick's bounds. Cases with inputs that are NaN or infinite are not counted
 * in `coverage`: they may leave any share of the results without a bound, for a product of matrices nearly all.
 */
export async function checkForward(
  device: Device,
  yardstick: Yardstick,
  record: OpRecord,
  test: OpCase,
  how: Variation,
  coverage: Coverage,
): Promise<void> {
  const { dtypes } = device.backend.caps;
  const expected = build(yardstick.device, record, test, how, dtypes);
  const found = build(device, record, test, how, dtypes);
  realize(...expected);
  realize(...found);
  const special = test.inputs.some((spec, i) => draw(spec, i, how, dtypes).special);
  const counted: Coverage = special ? { elements: 0, bounded: 0 } : coverage;
  const outputs = record.gradient === "yes" ? "output or gradient" : "output";
  for (const [i, tensor] of expected.entries()) {
    const { values, errors } = await yardstick.read(tensor);
    const complaint = firstDifference(await found[i]!.data(), values, errors, counted);
    if (!complaint) continue;
    const shapes = test.inputs.map((spec) => `[${spec.shape.join(", ")}]`).join(", ");
    const types = test.inputs.map((spec) => spec.dtypes[how.dtype % spec.dtypes.length]).join(", ");
    const views = test.inputs.map((_, k) => how.views[k % 5]!.kind).join(", ");
    const what = `${outputs} ${i} [${tensor.shape.join(", ")}] ${tensor.dtype}`;
    throw new Error(`${test.call} of ${shapes} (${types}; views ${views}): ${what}, ${complaint}`);
  }
}
