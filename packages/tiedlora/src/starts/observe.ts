/**
 * What starts are computed from: the inputs of adapted targets and the gradients of their weights, observed by an adapter that changes
 * nothing. Any method of one's own can use them.
 */
import { gradOrNull, type Tensor } from "@tiedlora/core";
import { createAdapter, type Adapter } from "../adapter/adapter.ts";
import { adaptersOf } from "../adapter/adapter.ts";
import { init } from "../init.ts";
import { defineMethod, type Method } from "../method.ts";
import type { LanguageModel, LossInputs } from "../model.ts";

/** Values by the path of the target that they are of, each [n, n] or [out, in], row-major, in float64. */
export type ByTarget = ReadonlyMap<string, Float64Array>;

/** Runs `work` with an adapter of `method` on the model, which is taken off afterwards. */
async function observed<T>(
  model: LanguageModel,
  method: Method,
  work: (adapter: Adapter) => Promise<T>,
): Promise<T> {
  if (model.streamed)
    throw new Error(
      "a start from data needs all weights in memory, and this model streams them; load it without stream, or choose a start from weights (pissa, olora, orthogonal)",
    );
  const { names } = adaptersOf(model);
  let name = "observer";
  while (names.includes(name)) name += "-";
  const adapter = createAdapter(model, method, { name }).attach();
  try {
    return await work(adapter);
  } finally {
    adapter.detach();
  }
}

/** Adds `values` to the sum at `path`. */
function accumulate(
  sums: Map<string, Float64Array>,
  path: string,
  values: ArrayLike<number>,
  by: number,
): void {
  let sum = sums.get(path);
  if (sum === undefined) sums.set(path, (sum = new Float64Array(values.length)));
  for (let i = 0; i < sum.length; i++) sum[i]! += values[i]! * by;
}

function checkBatches(what: string, batches: readonly LossInputs[]): void {
  if (!Array.isArray(batches) || batches.length === 0)
    throw new RangeError(`${what}: there are no batches; give at least one, e.g. of a hundred examples`);
}

/**
 * The mean of x xᵀ over the inputs x of each target that `method` adapts, by the target's path: [in, in]. All positions count,
 * padding too, so give rows of equal lengths, or one at a time. Inputs of embeddings, which are ids, are left out.
 */
export async function inputMoments(
  model: LanguageModel,
  method: Pick<Method, "target">,
  batches: readonly LossInputs[],
): Promise<ByTarget> {
  checkBatches("inputMoments", batches);
  const seen = new Map<string, Tensor>();
  const watcher = defineMethod({
    name: "input-observer",
    target: method.target,
    rank: 1,
    factors: { none: { shape: ["rank"], init: init.zeros(), trained: false } },
    product: [],
    forward: (_factors, { x, y, place }) => {
      seen.set(place.site.path, x);
      return y;
    },
  });
  return observed(model, watcher, async () => {
    const sums = new Map<string, Float64Array>();
    for (const batch of batches) {
      seen.clear();
      model.loss(batch); // builds the graph, through which every target is given its input
      for (const [path, x] of seen) {
        const rows = x.reshape([-1, x.shape.at(-1)!]);
        const square = rows
          .transpose()
          .matmul(rows)
          .mul(1 / rows.shape[0]!);
        accumulate(sums, path, await square.data(), 1 / batches.length);
      }
    }
    return sums;
  });
}

/**
 * The mean over `batches` of the gradient of the loss with respect to the frozen weight of each target that `method` adapts, by the
 * target's path: [out, in]. Takes as much memory as the weights in f32.
 */
export async function weightGradients(
  model: LanguageModel,
  method: Pick<Method, "target">,
  batches: readonly LossInputs[],
): Promise<ByTarget> {
  checkBatches("weightGradients", batches);
  const full = defineMethod({
    name: "gradient-observer",
    target: method.target,
    rank: 1,
    factors: { D: { shape: ["out", "in"], init: init.zeros() } },
    forward: ({ D }, { x, y }) => y.add(x.matmul(D.transpose())),
  });
  return observed(model, full, async (adapter) => {
    const sums = new Map<string, Float64Array>();
    for (const batch of batches) {
      const all = [...adapter.stateDict()];
      const gradients = gradOrNull(model.loss(batch), all.map(([, parameter]) => parameter)); // prettier-ignore
      for (const [i, [path, { size }]] of all.entries()) {
        const values = (await gradients[i]?.data()) ?? new Float32Array(size);
        accumulate(sums, path.replace(/\.D$/, ""), values, 1 / batches.length);
      }
    }
    return sums;
  });
}
