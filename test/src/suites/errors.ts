/** What must be refused, and in which words. */
import { checkpoint, type Device, grad, optim, Parameter, realize, type Tensor } from "@tiedlora/core";
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
    grad(region, [x]); // not of the weight: but the region would be computed again with the new one
  },
};

/** A gradient of a loss whose parameter has been updated since would be zeros, or that of two sets of weights at once. */
async function staleGradient(device: Device): Promise<void> {
  for (const [what, run] of Object.entries(FOR_EACH_WAY)) {
    const weight = makeParameter(device, "blocks.3.attention.q");
    const loss = weight.square().mul(weight).sum();
    await rejects(what, () => run(weight, loss), /blocks\.3\.attention\.q has been updated/);
  }
  // What does not pass through the old weight, or is not asked for it, is right and stays allowed.
  const [frozen, head] = [makeParameter(device, "frozen"), makeParameter(device, "head")];
  const features = frozen.square();
  realize(features);
  frozen.set([4, 5, 6]);
  const optimizer = optim.sgd([head], { lr: 1 });
  optimizer.step(head.mul(features).sum());
  if ([...(await head.data())].join() !== "0,-2,-6")
    throw new Error("values computed before an update changed");
}

/** What has been computed keeps its value, whatever becomes of the weights and of equal results. */
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
  await weight.detach().data(); // which must not give the weight's memory away
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
    on("errors: wrong shapes are refused at the call", refused),
  ];
}
