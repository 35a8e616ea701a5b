/** A backend that renders every program for a given device and runs none, to inspect kernels without a GPU. */
import type { Backend, DeviceBuffer, Executable, LibraryCall, Program } from "@tiedlora/kernels";
import { lowerProgram } from "../../src/codegen/lower.ts";
import { isRendered } from "../../src/codegen/library.ts";
import type { Kernel, Target } from "../../src/codegen/target.ts";

/** The limits that WebGPU guarantees everywhere. */
export const DEFAULT_LIMITS: Target = {
  f16: false,
  matmulPrecision: "f32",
  subgroup: 0,
  software: false,
  maxInvocations: 256,
  maxWorkgroupBytes: 16384,
  maxGroupsPerDimension: 65535,
  maxBindings: 8,
  maxBindingBytes: 128 << 20,
  offsetAlignment: 256,
};

/** The limits and features of Mesa's software driver. */
export const SOFTWARE: Target = {
  ...DEFAULT_LIMITS,
  f16: true,
  subgroup: 8,
  software: true,
  maxInvocations: 1024,
  maxWorkgroupBytes: 32768,
  maxBindings: 16,
};

/** The limits and features of a graphics card. */
export const CARD: Target = {
  ...DEFAULT_LIMITS,
  f16: true,
  subgroup: 32,
  maxInvocations: 1024,
  maxWorkgroupBytes: 49152,
  maxBindings: 16,
  maxBindingBytes: 2 ** 31 - 4,
};

class NoMemory implements DeviceBuffer {
  readonly bytes: number;
  constructor(bytes: number) {
    this.bytes = bytes;
  }
  write(): void {}
  read(offset = 0, bytes: number = this.bytes - offset): Promise<ArrayBuffer> {
    return Promise.resolve(new ArrayBuffer(bytes));
  }
  free(): void {}
}

export class DryBackend implements Backend {
  readonly name = "dry";
  readonly caps: Backend["caps"];
  /** The kernels of each program, in the order of compilation. */
  readonly programs: (readonly Kernel[])[] = [];
  readonly #target: Target;

  constructor(target: Target) {
    this.#target = target;
    this.caps = {
      dtypes: new Set(["f32", "f16", "bf16", "i32", "u32", "bool"]),
      maxOperands: target.maxBindings,
      maxBufferBytes: 2 ** 32 - 4,
    };
  }
  alloc(bytes: number): DeviceBuffer {
    return new NoMemory(bytes);
  }
  accelerates(call: LibraryCall): boolean {
    return isRendered(call);
  }
  compile(program: Program): Executable {
    this.programs.push(lowerProgram(program, this.#target).kernels);
    return { tempBytes: 0, run() {}, free() {} };
  }
  sync(): Promise<void> {
    return Promise.resolve();
  }
  memory(): { liveBytes: number; peakBytes: number } {
    return { liveBytes: 0, peakBytes: 0 };
  }
  close(): void {}
}
