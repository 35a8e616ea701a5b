/** What must be refused, and in which words. */
import { type Device, grad, optim, Parameter, realize } from "@tiedlora/core";
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
    on("results keep their values", resultsAreValues),
    on("errors: wrong shapes are refused at the call", refused),
  ];
}
