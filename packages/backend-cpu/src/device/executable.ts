/** A compiled program as the framework runs it: its buffers are checked, and then its image is handed to the backend. */
import type { DeviceBuffer, Executable } from "@tiedlora/kernels";
import { type BufferOwner, CpuBuffer } from "./buffer.ts";
import type { ProgramImage } from "./image.ts";

/** Runs the image of a program on buffers that it owns. */
export interface ProgramRunner extends BufferOwner {
  /** `buffers`: the address of each buffer of the program; 0 for temporaries. */
  run(image: ProgramImage, buffers: readonly number[], scalars: Float64Array): void;
  forget(image: ProgramImage): void;
}

export class CpuExecutable implements Executable {
  readonly tempBytes: number;
  readonly #owner: ProgramRunner;
  readonly #image: ProgramImage;

  constructor(owner: ProgramRunner, image: ProgramImage) {
    this.#owner = owner;
    this.#image = image;
    this.tempBytes = image.tempBytes;
  }

  run(inputs: readonly DeviceBuffer[], outputs: readonly DeviceBuffer[], scalars: Float64Array): void {
    const { specs } = this.#image;
    this.#owner.assertOpen();
    if (scalars.length < this.#image.scalars) {
      throw new RangeError(`run: ${scalars.length} scalars given, ${this.#image.scalars} expected`);
    }
    let [nextInput, nextOutput] = [0, 0];
    const addresses = specs.map((spec, i) => {
      if (spec.kind === "temp") return 0;
      const buffer = spec.kind === "input" ? inputs[nextInput++] : outputs[nextOutput++];
      if (!(buffer instanceof CpuBuffer) || buffer.owner !== this.#owner || buffer.freed) {
        throw new TypeError(`run: ${spec.kind} buffer ${i} is missing, freed, or of another device`);
      }
      if (buffer.bytes < spec.bytes) {
        throw new RangeError(
          `run: ${spec.kind} buffer ${i} has ${buffer.bytes} bytes, ${spec.bytes} expected`,
        );
      }
      return buffer.address;
    });
    if (nextInput !== inputs.length || nextOutput !== outputs.length) {
      throw new RangeError(
        `run: ${inputs.length} inputs and ${outputs.length} outputs given, ${nextInput} and ${nextOutput} expected`,
      );
    }
    this.#owner.run(this.#image, addresses, scalars);
  }

  free(): void {
    this.#owner.forget(this.#image);
  }
}
