/**
 * Lowers programs to dispatches: each step becomes one kernel or a few. Steps that differ in their buffers alone, such as those of equal
 * layers, are rendered once.
 */
import {
  type Epilogue,
  type Instr,
  keptOr,
  type LastingCache,
  type LastingKey,
  type Operand,
  type Program,
  type Step,
  type Store,
} from "@tiedlora/kernels";
import { WebGpuError } from "../errors.ts";
import { Buffers } from "./buffers.ts";
import { renderLibrary } from "./library.ts";
import { renderLoop } from "./loop.ts";
import type { Kernel, Target } from "./target.ts";

/** The kernels of a program, or of a step, in order, and the sizes of the buffers that they use besides its own. */
export interface Lowered {
  readonly kernels: readonly Kernel[];
  readonly scratchBytes: readonly number[];
}

/** Renders a program. Throws where a step exceeds what the device can bind. */
export function lowerProgram(program: Program, target: Target): Lowered {
  const bytes = program.buffers.map((b) =>
    b.aliasOf === undefined ? b.bytes : program.buffers[b.aliasOf]!.bytes,
  );
  const known = new Map<string, Lowered>();
  // steps run in order, so each may reuse the scratch buffers of earlier steps
  const scratchBytes: number[] = [];
  const kernels = program.steps.flatMap((given) => {
    const { step, buffers } = renumbered(given);
    const own = buffers.map((b) => bytes[b]!);
    const key = `${keyOf(step)} ${own.join()}`;
    let lowered = known.get(key);
    if (lowered === undefined) known.set(key, (lowered = lowerStep(step, own, target)));
    lowered.scratchBytes.forEach((n, i) => (scratchBytes[i] = Math.max(scratchBytes[i] ?? 0, n)));
    const placeOf = (b: number): number => buffers[b] ?? bytes.length + b - own.length;
    return lowered.kernels.map((kernel) => ({
      ...kernel,
      bindings: kernel.bindings.map((b) => ({ ...b, buffer: placeOf(b.buffer) })),
    }));
  });
  return { kernels, scratchBytes };
}

function lowerStep(step: Step, bytes: readonly number[], target: Target): Lowered {
  const buffers = new Buffers(bytes);
  const kernels =
    step.type === "loop" ? renderLoop(step, bytes, target) : renderLibrary(step, buffers, target);
  return { kernels: checked(step, kernels, target), scratchBytes: buffers.scratchBytes };
}

/** A lowered program as a lasting cache has it: each text once, and kernels by the number of their text. */
interface Kept extends Pick<Lowered, "scratchBytes"> {
  readonly texts: readonly string[];
  readonly kernels: readonly (Omit<Kernel, "code"> & { readonly text: number })[];
}

/** The same as `lowerProgram`, from `cache` if it is there. */
export function keptOrLowered(program: Program, target: Target, cache: LastingCache | undefined): Lowered {
  if (cache === undefined) return lowerProgram(program, target);
  const pack = ({ kernels, scratchBytes }: Lowered): Kept => {
    const texts = [...new Set(kernels.map(({ code }) => code))];
    const numbers = new Map(texts.map((text, i) => [text, i]));
    const packed = kernels.map(({ code, ...rest }) => ({ ...rest, text: numbers.get(code)! }));
    return { texts, kernels: packed, scratchBytes };
  };
  const key = (): LastingKey => loweringKey(program, target);
  const { texts, kernels, scratchBytes } = keptOr(cache, "shaders", key, () =>
    pack(lowerProgram(program, target)),
  );
  return { kernels: kernels.map(({ text, ...rest }) => ({ ...rest, code: texts[text]! })), scratchBytes };
}

/** All that the lowered program follows from. */
function loweringKey({ steps, ...rest }: Program, { tiles, ...target }: Target): LastingKey {
  return [JSON.stringify([rest, target, [...(tiles ?? [])]]), steps.map(keyOf).join("; ")];
}

/** The step with its buffers numbered in the order in which they come, and these buffers. */
function renumbered(step: Step): { readonly step: Step; readonly buffers: readonly number[] } {
  const numbers = new Map<number, number>();
  const operand = (o: Operand): Operand => {
    let buffer = numbers.get(o.buffer);
    if (buffer === undefined) numbers.set(o.buffer, (buffer = numbers.size));
    const { quantized } = o;
    if (!quantized) return { ...o, buffer };
    const scales = operand(quantized.scales);
    const biases = quantized.biases && { biases: operand(quantized.biases) };
    return { ...o, buffer, quantized: { ...quantized, scales, ...biases } };
  };
  const body = (of: readonly Instr[]): Instr[] =>
    of.map((i) => (i.op === "load" ? { ...i, from: operand(i.from) } : i));
  const stores = (of: readonly Store[]): Store[] => of.map((s) => ({ ...s, to: operand(s.to) }));
  const renamed = (): Step => {
    if (step.type === "loop") return { ...step, body: body(step.body), stores: stores(step.stores) };
    const [inputs, outputs] = [step.inputs.map(operand), step.outputs.map(operand)];
    if (step.name !== "matmul" || !step.params.epilogue) return { ...step, inputs, outputs };
    const { epilogue } = step.params;
    const own: Epilogue = { body: body(epilogue.body), stores: stores(epilogue.stores) };
    return { ...step, params: { ...step.params, epilogue: own }, inputs, outputs };
  };
  return { step: renamed(), buffers: [...numbers.keys()] };
}

/** A text that is equal for equal steps. JSON has no NaN, infinities and -0. */
function keyOf(step: Step): string {
  const body = step.type === "loop" ? step.body : step.name === "matmul" ? step.params.epilogue?.body : [];
  const constants = body?.flatMap((i) =>
    i.op !== "const" ? [] : [Object.is(i.value, -0) ? "-0" : String(i.value)],
  );
  return `${JSON.stringify(step)} ${constants?.join()}`;
}

function checked(step: Step, kernels: Kernel[], target: Target): Kernel[] {
  for (const { label, bindings } of kernels) {
    if (bindings.length <= target.maxBindings) continue;
    const what = step.type === "loop" ? "loop kernel" : step.name;
    throw new WebGpuError(
      `the ${what} "${label}" binds ${bindings.length} buffers (or parts of buffers larger than ` +
        `${target.maxBindingBytes} bytes), but this device allows ${target.maxBindings} to a kernel; ` +
        "split the tensor, or use a device with higher limits",
    );
  }
  return kernels;
}
