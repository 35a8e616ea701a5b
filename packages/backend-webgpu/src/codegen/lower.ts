/** Lowers programs to dispatches: each step becomes one kernel or a few. */
import { keptOr, type LastingCache, type LastingKey, type Program, type Step } from "@tiedlora/kernels";
import { WebGpuError } from "../errors.ts";
import { Buffers } from "./buffers.ts";
import { KnownSteps, type Lowered } from "./known-steps.ts";
import { renderLibrary } from "./library.ts";
import { renderLoop } from "./loop.ts";
import { fitsBinding, wholeBytes } from "./shown.ts";
import type { Binding, Kernel, Target } from "./target.ts";

/** Lowers programs for one device. Steps that differ in their buffers alone are rendered once, whatever programs they are in. */
export class Lowering {
  readonly #target: Target;
  readonly #known: KnownSteps;

  constructor(target: Target) {
    this.#target = target;
    this.#known = new KnownSteps(target);
  }

  /** How many steps were rendered. */
  get rendered(): number {
    return this.#known.added;
  }

  /** Lowers a program. Throws where a step exceeds what the device can bind. */
  lower(program: Program): Lowered {
    const bytes = program.buffers.map((b) =>
      b.aliasOf === undefined ? b.bytes : program.buffers[b.aliasOf]!.bytes,
    );
    // steps run in order, so each may reuse the scratch buffers of earlier steps
    const scratchBytes: number[] = [];
    const kernels = program.steps.flatMap((step) => {
      const { lowered, buffers } = this.#known.of(step, bytes, (own, of) => lowerStep(own, of, this.#target));
      lowered.scratchBytes.forEach((n, i) => (scratchBytes[i] = Math.max(scratchBytes[i] ?? 0, n)));
      const bind = (binding: Binding): Binding => {
        const buffer = buffers[binding.buffer];
        // scratch buffers come after those of the program
        if (buffer === undefined)
          return { ...binding, buffer: bytes.length + binding.buffer - buffers.length };
        const size = bytes[buffer]!;
        return fitsBinding(size, this.#target)
          ? { ...binding, buffer, bytes: wholeBytes(size) }
          : { ...binding, buffer };
      };
      return lowered.kernels.map((kernel) => ({ ...kernel, bindings: kernel.bindings.map(bind) }));
    });
    return { kernels, scratchBytes };
  }

  /** The same from `cache`, if it is there. */
  keptOrLowered(program: Program, cache: LastingCache | undefined): Lowered {
    if (cache === undefined) return this.lower(program);
    const key = (): LastingKey => loweringKey(program, this.#target);
    return unpacked(keptOr(cache, "shaders", key, () => packed(this.lower(program))));
  }
}

/** The same for a single program. */
export function lowerProgram(program: Program, target: Target): Lowered {
  return new Lowering(target).lower(program);
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

function packed({ kernels, scratchBytes }: Lowered): Kept {
  const texts = [...new Set(kernels.map(({ code }) => code))];
  const numbers = new Map(texts.map((text, i) => [text, i]));
  const numbered = kernels.map(({ code, ...rest }) => ({ ...rest, text: numbers.get(code)! }));
  return { texts, kernels: numbered, scratchBytes };
}

function unpacked({ texts, kernels, scratchBytes }: Kept): Lowered {
  return { kernels: kernels.map(({ text, ...rest }) => ({ ...rest, code: texts[text]! })), scratchBytes };
}

/** All that the lowered program follows from. */
function loweringKey({ steps, ...rest }: Program, { tiles, ...target }: Target): LastingKey {
  return [JSON.stringify([rest, target, [...(tiles ?? [])]]), steps.map(keyOf).join("; ")];
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
