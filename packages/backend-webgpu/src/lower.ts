/** Programs to dispatches: each step becomes one kernel or a few. */
import type { LibraryCall, LoopKernel, Program, Step } from "@tiedlora/core";
import { renderLoop } from "./wgsl/loop.ts";
import type { Kernel, Target } from "./wgsl/target.ts";
import { WebGpuError } from "./errors.ts";
import { renderLibrary } from "./wgsl/library.ts";

/** The kernels of a program, in order. Throws where a step exceeds what the device can bind. */
export function lowerProgram(program: Program, target: Target): Kernel[] {
  const bytes = program.buffers.map((b) =>
    b.aliasOf === undefined ? b.bytes : program.buffers[b.aliasOf]!.bytes,
  );
  return program.steps.flatMap((step) => checked(step, lowerStep(step, bytes, target), target));
}

function lowerStep(step: Step, bytes: readonly number[], target: Target): Kernel[] {
  return step.type === "loop" ? renderLoop(step, bytes, target) : renderLibrary(step, bytes, target);
}

function checked(step: LoopKernel | LibraryCall, kernels: Kernel[], target: Target): Kernel[] {
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
