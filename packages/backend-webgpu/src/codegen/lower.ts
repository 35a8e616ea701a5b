/** Lowers programs to dispatches: each step becomes one kernel or a few. */
import type { Program, Step } from "@tiedlora/kernels";
import { WebGpuError } from "../errors.ts";
import { Buffers } from "./buffers.ts";
import { renderLibrary } from "./library.ts";
import { renderLoop } from "./loop.ts";
import type { Kernel, Target } from "./target.ts";

/** The kernels of a program, in order, and the sizes of the buffers that they use besides the program's. */
export interface Lowered {
  readonly kernels: readonly Kernel[];
  readonly scratchBytes: readonly number[];
}

/** Renders a program. Throws where a step exceeds what the device can bind. */
export function lowerProgram(program: Program, target: Target): Lowered {
  const buffers = new Buffers(
    program.buffers.map((b) => (b.aliasOf === undefined ? b.bytes : program.buffers[b.aliasOf]!.bytes)),
  );
  const kernels = program.steps.flatMap((step) => {
    buffers.beginStep();
    const rendered =
      step.type === "loop" ? renderLoop(step, buffers.bytes, target) : renderLibrary(step, buffers, target);
    return checked(step, rendered, target);
  });
  return { kernels, scratchBytes: buffers.scratchBytes };
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
