/**
 * peft's RANDLORA. Its bases are as large as the largest inputs and outputs of all modules need; ours may be smaller. A file without them
 * (`save_projection: false`) names the seed that they are drawn from. PyTorch draws other numbers from a seed than this library does, so our seeds
 * have a name that Python refuses.
 */
import type { Shape, Tensor } from "@tiedlora/core";
import type * as nn from "@tiedlora/nn";
import type { Adapter } from "../../adapter/adapter.ts";
import type { Json } from "../../method.ts";
import { methods } from "../../methods/index.ts";
import type { Reader } from "./config.ts";
import { type PeftKind, plain, type Stored } from "./kind.ts";

export const RANDLORA: PeftKind = {
  method: "rand-lora",
  bias: "randlora_only",
  rank: ["r", 32],
  dropout: "randlora_dropout",
  declare: (fields, common) => {
    const alpha = fields.number("randlora_alpha", 640, (a) => a !== 0, "a number other than 0");
    return methods.randLora({ ...common, alpha });
  },
  fields: ({ method }) => ({
    r: method.rank,
    randlora_alpha: method.alpha,
    projection_prng_key: 0,
    save_projection: true,
    sparse: false,
    very_sparse: false,
    init_weights: true,
  }),
  seed: seedOf,
  tensors: (layer, adapter) =>
    layer === null
      ? bases(adapter)
      : [plain(layer, "lambda", "randlora_lambda"), plain(layer, "gamma", "randlora_gamma")],
};

/** What a seed of this library begins with in `projection_prng_key`. */
const OURS = "tiedlora:";

function seedOf(fields: Reader): number | null {
  if (fields.flag("save_projection", true)) return null;
  const { projection_prng_key: key } = fields.raw;
  const named = typeof key === "string" && key.startsWith(OURS) ? key.slice(OURS.length) : "";
  if (/^\d{1,15}$/.test(named)) return Number(named);
  return fields.fail(
    "save_projection",
    "true: without its projections the file needs random numbers of PyTorch's, which this library does not draw",
    "In Python, load the adapter, set model.peft_config['default'].save_projection = True, and save it again.",
  );
}

/** The fields of a file that names the seed of an adapter's bases. Throws if they have other values than the seed gives. */
export function seededFields(adapter: Adapter): Readonly<Record<string, Json>> {
  const { method, drawn, seed } = adapter;
  if (method.name !== "rand-lora")
    throw new Error(
      `the format peft-seed names the seed of RandLoRA's random bases, and this adapter is of ${method.name}; export as peft`,
    );
  if (adapter.plan.factors.some(({ path, spec }) => spec.bySeed && !drawn.has(path)))
    throw new Error(
      "the bases of this adapter do not come from its seed: they were read from a file, or set; export as peft, which holds them",
    );
  return { save_projection: false, projection_prng_key: `${OURS}${seed}` };
}

/** A [r, 1, smaller] and B [larger, bases, r] for the whole adapter; what no module uses is zero. */
function bases(adapter: Adapter): Stored[] {
  const sites = adapter.plan.sites.map(({ site }) => site);
  const sizes = [Math.max(...sites.map((site) => site.in)), Math.max(...sites.map((site) => site.out))];
  const [smaller, larger] = [Math.min(...sizes), Math.max(...sizes)];
  const { rank } = adapter.method;
  const count = Math.ceil(smaller / rank);
  const [A, B] = [adapter.select({ factors: ["A"] })[0]!, adapter.select({ factors: ["B"] })[0]!];
  return [
    padded("base_model.randlora_A", A, [rank, smaller], [rank, 1, smaller]),
    padded("base_model.randlora_B", B, [larger, count * rank], [larger, count, rank]),
  ];
}

/** A matrix that is the leading part of a larger one in the file. */
function padded(
  name: string,
  parameter: nn.Parameter,
  [rows, columns]: readonly [number, number],
  shape: Shape,
): Stored {
  const [ownRows, ownColumns] = parameter.shape as [number, number];
  const write = (): Tensor =>
    parameter.pad([[0, rows - ownRows], [0, columns - ownColumns]]).reshape(shape); // prettier-ignore
  const read = (values: Float32Array): Float32Array =>
    Float32Array.from({ length: parameter.size }, (_, i) => values[Math.floor(i / ownColumns) * columns + (i % ownColumns)]!); // prettier-ignore
  return { name, parameter, shape, write, read };
}
