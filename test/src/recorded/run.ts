/** Runs recorded cases on a device: many in one program, trainings one at a time. */
import { type Device, grad, isFloat, Parameter, realize, sameShape, type Tensor } from "@tiedlora/core";
import * as optim from "@tiedlora/nn/optim";
import { difference } from "./compare.ts";
import type { Argument, Expected, RecordedCase, RecordedInput, Training } from "./format.ts";
import { OPERATIONS } from "./operations.ts";
import { parseNumber, valuesOf, weights } from "./values.ts";

const count = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1);

function makeInput(device: Device, { dtype, shape, values, parameter }: RecordedInput): Tensor {
  const numbers = valuesOf(dtype, count(shape), values);
  return parameter ? Parameter.from(device, numbers, shape, dtype) : device.tensor(numbers, { shape, dtype });
}

function resolve(argument: Argument, values: readonly Tensor[]): unknown {
  if (typeof argument === "string") {
    if (argument.startsWith("$")) return values[Number(argument.slice(1))];
    if (argument === "#none") return undefined;
    return argument.startsWith("#") ? parseNumber(argument.slice(1)) : argument;
  }
  return Array.isArray(argument) ? argument.map((a) => resolve(a as Argument, values)) : argument;
}

/** Applies the case's steps to its inputs, and returns its outputs. */
function build({ steps, outputs }: RecordedCase, inputs: readonly Tensor[]): Tensor[] {
  const values = [...inputs];
  for (const [name, ...args] of steps) {
    const operation = OPERATIONS[name];
    if (!operation) throw new Error(`no operation is named "${name}"`);
    const made = operation(...args.map((a) => resolve(a, values)));
    values.push(...(Array.isArray(made) ? (made as Tensor[]) : [made as Tensor]));
  }
  return outputs.map((i) => values[i]!);
}

/** Σ weight · element over the float tensors among `tensors`; null if there are none. */
function weightedSum(device: Device, tensors: readonly Tensor[], seed: number): Tensor | null {
  const parts = tensors
    .filter(({ dtype }) => isFloat(dtype))
    .map((t, k) => t.mul(device.tensor(weights(t.size, seed + k), { shape: t.shape })).sum());
  return parts.length === 0 ? null : parts.reduce((a, b) => a.add(b));
}

/** A tensor to read, and its recorded contents. */
interface Check {
  readonly tensor: Tensor;
  readonly expected: Expected;
}

/** The results and gradients of a case, each with its recorded contents. */
function checksOf(device: Device, recorded: RecordedCase): Check[] {
  const inputs = recorded.inputs.map((input) => makeInput(device, input));
  const wrt = inputs.filter(({ dtype }, i) => isFloat(dtype) && !recorded.fixed.includes(i));
  let tensors = build(recorded, inputs);
  const checks: Check[] = [];
  recorded.expected.forEach((list, order) => {
    if (order > 0) {
      const loss = weightedSum(device, tensors, 100 * (order - 1) + 1);
      if (!loss) throw new Error("there is no float result to differentiate");
      tensors = grad(loss, wrt);
    }
    if (tensors.length !== list.length)
      throw new Error(`${tensors.length} results where ${list.length} are recorded`);
    list.forEach((expected, i) => checks.push({ tensor: tensors[i]!, expected }));
  });
  return checks;
}

async function verify(checks: readonly Check[], by: RecordedCase["by"]): Promise<void> {
  for (const { tensor, expected } of checks) {
    const { shape, dtype, what } = expected;
    if (shape && (!sameShape(tensor.shape, shape) || tensor.dtype !== dtype))
      throw new Error(`${what} is ${String(tensor)}, recorded as [${shape.join(", ")}] ${dtype}`);
    const complaint = difference(await tensor.data(), expected, by);
    if (complaint) throw new Error(complaint);
  }
}

const OPTIMIZERS = {
  sgd: (parameters: Parameter[], options: unknown) => optim.sgd(parameters, options as optim.SGDOptions),
  adamW: (parameters: Parameter[], options: unknown) =>
    optim.adamW(parameters, options as optim.AdamWOptions),
} as const;

function maskOf(device: Device, parameter: Tensor, text: string): Tensor {
  return device.tensor(text.split(" ").map(Number), { shape: parameter.shape });
}

/** Trains, and compares the loss of every step and the final values of the parameters. */
async function train(device: Device, recorded: RecordedCase, how: Training): Promise<void> {
  const inputs = recorded.inputs.map((input) => makeInput(device, input));
  const parameters = inputs.filter((x) => x instanceof Parameter);
  for (const [i, text] of Object.entries(how.masks ?? {})) {
    const parameter = inputs[Number(i)] as Parameter;
    parameter.updateMask = maskOf(device, parameter, text);
  }
  const optimizer = OPTIMIZERS[how.optimizer](parameters, how.options);
  const losses: number[] = [];
  for (let step = 0; step < how.steps; step++) {
    const passes = how.accumulate ?? 1;
    for (let pass = 0; pass < passes; pass++) {
      const loss = build(recorded, inputs)[0]!;
      if (passes === 1) optimizer.step(loss);
      else optimizer.accumulate(loss);
      if (pass === 0) losses.push(await loss.item());
    }
    if (passes > 1) optimizer.step();
  }
  const tensors = [device.tensor(losses), ...parameters];
  await verify(
    recorded.expected[0]!.map((expected, i) => ({ tensor: tensors[i]!, expected })),
    recorded.by,
  );
}

/** Runs one case by itself. Throws if it is wrong. */
async function runAlone(device: Device, recorded: RecordedCase): Promise<void> {
  if (recorded.train) await train(device, recorded, recorded.train);
  else await verify(checksOf(device, recorded), recorded.by);
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** Runs all cases but trainings in one program, then the trainings. Returns the messages of the failures by case ID. */
export async function runCases(device: Device, cases: readonly RecordedCase[]): Promise<Map<string, string>> {
  const wrong = new Map<string, string>();
  const together: [RecordedCase, Check[]][] = [];
  for (const recorded of cases) {
    if (recorded.train) continue;
    try {
      together.push([recorded, checksOf(device, recorded)]);
    } catch (error) {
      wrong.set(recorded.id, messageOf(error));
    }
  }
  realize(...together.flatMap(([, checks]) => checks.map(({ tensor }) => tensor)));
  for (const [recorded, checks] of together)
    await verify(checks, recorded.by).catch((error: unknown) => wrong.set(recorded.id, messageOf(error)));
  for (const recorded of cases.filter(({ train: how }) => how !== null))
    await runAlone(device, recorded).catch((error: unknown) => wrong.set(recorded.id, messageOf(error)));
  return wrong;
}
