/** Calls that must be refused, and the words of the errors. */
import { checkpoint, type Device, type DType, grad, Parameter, realize, type Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";
import type { ConformanceCase, Context } from "./context.ts";

async function rejects(what: string, f: () => unknown, wanted: RegExp): Promise<void> {
  let outcome = "nothing was thrown";
  try {
    await f();
  } catch (error) {
    outcome = error instanceof Error ? error.message : String(error);
    if (wanted.test(outcome)) return;
  }
  throw new Error(`${what}: expected an error like ${wanted}; ${outcome}`);
}

function makeParameter(device: Device, name: string): Parameter {
  return Parameter.from(device, [1, 2, 3], [3], "f32", name);
}

async function staleRead(device: Device): Promise<void> {
  const weight = makeParameter(device, "blocks.3.attention.q");
  const before = weight.mul(2);
  const optimizer = optim.sgd([weight], { lr: 0.5 });
  const loss = weight.square().sum();
  optimizer.step(loss);
  if ((await loss.item()) !== 14) throw new Error("the loss of a step is that of the weights before it");
  await rejects("reading what was built on old weights", () => before.data(), /blocks\.3\.attention\.q/);
  const values = [...(await weight.mul(2).data())];
  if (values.join() !== "0,0,0")
    throw new Error(`after the step, 2 w is [${values.join(", ")}] instead of [0, 0, 0]`);
}

async function staleAfterSet(device: Device): Promise<void> {
  const weight = makeParameter(device, "table");
  const before = weight.add(1);
  weight.set([7, 8, 9]);
  await rejects("reading what was built before set()", () => before.data(), /table/);
  if ([...(await weight.data())].join() !== "7,8,9") throw new Error("set() did not set");
}

const FOR_EACH_WAY: Readonly<Record<string, (weight: Parameter, loss: Tensor) => unknown>> = {
  "a second step": (weight, loss) => {
    const optimizer = optim.sgd([weight], { lr: 0.5 });
    optimizer.step(loss);
    optimizer.step(loss);
  },
  "accumulating after a step": (weight, loss) => {
    const optimizer = optim.adamW([weight], { lr: 0.5 });
    optimizer.step(loss);
    optimizer.accumulate(loss);
  },
  "grad after set()": (weight, loss) => {
    weight.set([4, 5, 6]);
    grad(loss, [weight]);
  },
  "grad of a loss that was read, after set()": async (weight, loss) => {
    await loss.item();
    weight.set([4, 5, 6]);
    grad(loss, [weight]);
  },
  "a second derivative after set()": (weight, loss) => {
    const [first] = grad(loss, [weight]) as [Tensor];
    weight.set([4, 5, 6]);
    grad(first.sum(), [weight]);
  },
  "the gradient of a checkpointed region after set()": async (weight, loss) => {
    const x = loss.detach();
    const region = checkpoint((input) => input.mul(weight).square().sum(), x);
    await region.item();
    weight.set([4, 5, 6]);
    grad(region, [x]); // the gradient is not for the weight, but the region would be computed again with its new values
  },
};

/** If a parameter was updated after the loss was built, its gradient would be zeros, or would mix old and new weights. */
async function staleGradient(device: Device): Promise<void> {
  for (const [what, run] of Object.entries(FOR_EACH_WAY)) {
    const weight = makeParameter(device, "blocks.3.attention.q");
    const loss = weight.square().mul(weight).sum();
    await rejects(what, () => run(weight, loss), /blocks\.3\.attention\.q has been updated/);
  }
  // Gradients that do not pass through the old weight, or are not taken for it, are right and stay allowed.
  const [frozen, head] = [makeParameter(device, "frozen"), makeParameter(device, "head")];
  const features = frozen.square();
  realize(features);
  frozen.set([4, 5, 6]);
  const optimizer = optim.sgd([head], { lr: 1 });
  optimizer.step(head.mul(features).sum());
  if ([...(await head.data())].join() !== "0,-2,-6")
    throw new Error("values computed before an update changed");
}

/** Computed results keep their values, whatever happens to the weights and to equal results. */
async function resultsAreValues(device: Device): Promise<void> {
  const weight = makeParameter(device, "w");
  const [alias, view, twin, twin2] = [weight.detach(), weight.reshape([3, 1]), weight.mul(2), weight.mul(2)];
  realize(alias, view, twin, twin2);
  weight.set([7, 8, 9]);
  for (const [tensor, wanted] of [
    [alias, "1,2,3"],
    [view, "1,2,3"],
    [twin, "2,4,6"],
    [twin2, "2,4,6"],
    [weight, "7,8,9"],
  ] as const) {
    const values = [...(await tensor.data())].join();
    if (values !== wanted)
      throw new Error(`a result computed before an update is ${values} after it instead of ${wanted}`);
  }
  await weight.detach().data(); // this must not take the weight's memory
  if ([...(await weight.data())].join() !== "7,8,9")
    throw new Error("reading a view of a weight took the weight's memory");
}

async function refused(device: Device): Promise<void> {
  const x = device.tensor([1, 2, 3, 4, 5, 6], { shape: [2, 3] });
  await rejects("add of unequal shapes", () => x.add(device.tensor([1, 2])), /\[2, 3\].*\[2\]/);
  await rejects("matmul of unequal inner axes", () => x.matmul(x), /\[2, 3\]/);
  await rejects("reshape to another size", () => x.reshape([4]), /6/);
  await rejects("grad of a vector", () => grad(x, [x]), /\[2, 3\]/);
  await rejects("item of a matrix", () => x.item(), /\[2, 3\]/);
}

const LOGITS = [[1, 2, 3], [0, 0, 1], [2, 1, 0], [5, 5, 4]]; // prettier-ignore

/** The weighted mean of -log softmax over the rows of LOGITS, followed by its gradient. */
function crossEntropyByHand(targets: readonly number[], weights: readonly number[]): number[] {
  const total = weights.reduce((a, b) => a + b, 0);
  const rows = LOGITS.map((row) => {
    const sum = row.reduce((a, x) => a + Math.exp(x), 0);
    return row.map((x) => Math.exp(x) / sum);
  });
  const gradient = rows.flatMap((p, i) =>
    p.map((x, j) => (weights[i] === 0 ? 0 : ((x - Number(j === targets[i])) * weights[i]!) / total)),
  );
  const terms = rows.map((p, i) => (weights[i] === 0 ? 0 : -weights[i]! * Math.log(p[targets[i]!]!)));
  return [terms.reduce((a, b) => a + b, 0) / total, ...gradient];
}

/** Ignored targets contribute nothing; any other target that is not a class makes the loss NaN. */
async function targetsOutOfRange(device: Device): Promise<void> {
  const logits = device.tensor(LOGITS);
  const found = async (targets: number[], options: object, dtype: DType = "i32"): Promise<number[]> => {
    const loss = nn.crossEntropy(logits, device.tensor(targets, { dtype }), options);
    const [gradient] = grad(loss, [logits]) as [Tensor];
    return [await loss.item(), ...(await gradient.data())];
  };
  const half = { mask: device.tensor([1, 0.5, 0, 2]) };
  const cases: [number[], object, number[], DType?][] = [
    [[0, 1, 2, 0], {}, [1, 1, 1, 1]],
    [[0, 1, 2, 0], { ignoreIndex: null }, [1, 1, 1, 1]],
    [[0, -100, 2, -100], {}, [1, 0, 1, 0]],
    [[0, 4294967196, 2, 1], {}, [1, 0, 1, 1], "u32"],
    [[0, 1, 2, 0], { ignoreIndex: 0 }, [0, 1, 1, 0]],
    [[-100, 1, 7, 0], half, [0, 0.5, 0, 2]],
    [[2, 1, -3, 0], { ...half, ignoreIndex: null }, [1, 0.5, 0, 2]],
  ];
  for (const [targets, options, weights, dtype] of cases) {
    const wanted = crossEntropyByHand(targets, weights);
    (await found(targets, options, dtype)).forEach((x, i) => {
      if (!(Math.abs(x - wanted[i]!) <= 1e-6))
        throw new Error(
          `crossEntropy of targets [${targets.join()}]: [${i}] is ${x} instead of ${wanted[i]}`,
        );
    });
  }
  for (const stray of [3, -1, -101, 2 ** 30]) {
    for (const options of [{}, { ignoreIndex: null }, half]) {
      const [loss, ...gradient] = await found([0, stray, 2, 1], options);
      if (!Number.isNaN(loss) || !gradient.slice(3, 6).every(Number.isNaN))
        throw new Error(`crossEntropy: the target ${stray} of 3 classes gives ${loss}, [${gradient.join()}]`);
    }
  }
  const [nothing, ...zeros] = await found([-100, -100, -100, -100], {});
  if (!Number.isNaN(nothing) || zeros.some((x) => x !== 0))
    throw new Error(
      `crossEntropy of nothing is ${nothing} with the gradient [${zeros.join()}]; need NaN, and 0`,
    );
}

/** Looking up an index out of range gives NaN, or 0 for types without NaN. */
async function indicesOutOfRange(device: Device): Promise<void> {
  const index = device.tensor([-1, 2, 3, -100], { dtype: "i32" });
  const same = async (what: string, tensor: Tensor, wanted: readonly number[]): Promise<void> => {
    const values = [...(await tensor.data())];
    if (values.join() !== wanted.join())
      throw new Error(`${what} is [${values.join()}] instead of [${wanted.join()}]`);
  };
  const floats = device.tensor([5, 6, 7]);
  const integers = device.tensor([5, 6, 7], { dtype: "i32" });
  await same("take", floats.take(index), [NaN, 7, NaN, NaN]);
  await same("take of integers", integers.take(index), [0, 7, 0, 0]);
  await same("gather", floats.gather(0, index), [NaN, 7, NaN, NaN]);
  await same("gather of integers", integers.gather(0, index), [0, 7, 0, 0]);
  await same("oneHot", index.oneHot(3), [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
  await same("oneHot of bool", index.oneHot(3, "bool"), [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
  const [gradient] = grad(floats.take(index).sum(), [floats]) as [Tensor];
  await same("the gradient of take", gradient, [0, 0, 1]);
}

export function errorCases(context: Context): ConformanceCase[] {
  const on = (name: string, f: (device: Device) => Promise<void>): ConformanceCase => ({
    name,
    run: async () => f(await context.device()),
  });
  return [
    on("errors: a stale read names the weight", staleRead),
    on("errors: a stale read after set() names the weight", staleAfterSet),
    on("errors: the gradient of a loss built before an update names the weight", staleGradient),
    on("results keep their values", resultsAreValues),
    on("targets out of range: ignored or NaN", targetsOutOfRange),
    on("indices out of range: NaN", indicesOutOfRange),
    on("errors: wrong shapes are refused at the call", refused),
  ];
}
