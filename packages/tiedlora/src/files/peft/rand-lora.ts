/** peft's RANDLORA. Its bases are as large as the largest inputs and outputs of all modules need; ours may be smaller. */
import type { Shape, Tensor } from "@tiedlora/core";
import type * as nn from "@tiedlora/nn";
import type { Adapter } from "../../adapter/adapter.ts";
import { methods } from "../../methods/index.ts";
import { type PeftKind, plain, type Stored } from "./kind.ts";

export const RANDLORA: PeftKind = {
  method: "rand-lora",
  bias: "randlora_only",
  rank: ["r", 32],
  dropout: "randlora_dropout",
  declare: (fields, common) => {
    fields.only("save_projection", [true, null]);
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
  tensors: (layer, adapter) =>
    layer === null
      ? bases(adapter)
      : [plain(layer, "lambda", "randlora_lambda"), plain(layer, "gamma", "randlora_gamma")],
};

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
