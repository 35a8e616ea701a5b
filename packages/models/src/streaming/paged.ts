/**
 * Parameters without memory of their own. Memory of the device is lent to them while their layer is computed; at other times,
 * whoever reads one gets an error that names it.
 */
import type { Device, DeviceBuffer, DType, Shape } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";

/** A weight whose values are in memory only at times. */
export interface PagedWeight {
  readonly weight: nn.Parameter;
  /** What takes memory: the weight itself; of a quantized one, its words, scales and biases. */
  readonly parts: readonly PagedPart[];
  /** Reads the values from the files into the memory of the parts, which no submitted program uses. */
  readonly fill: (memory: readonly DeviceBuffer[]) => Promise<void>;
}

/** A parameter that memory is lent to, and the bytes that it takes on the device. */
export interface PagedPart {
  readonly parameter: nn.Parameter;
  readonly bytes: number;
}

/** Stands for memory while there is none. */
class Absent implements DeviceBuffer {
  readonly bytes = 0;
  readonly #reason: Error;

  constructor(reason: Error) {
    this.#reason = reason;
  }
  write(): void {
    throw this.#reason;
  }
  read(): Promise<ArrayBuffer> {
    return Promise.reject(this.#reason);
  }
  free(): void {}
}

/** A frozen parameter without memory. */
export function absentParameter(device: Device, path: string, shape: Shape, dtype: DType): nn.Parameter {
  const storage = device.allocate(4, path);
  storage.buffer.memory.free();
  storage.buffer.freed = true; // it owns no memory from now on, so that nobody frees what is lent
  const parameter = new nn.Parameter(storage, shape, dtype, device);
  parameter.requiresGrad = false;
  takeBack(parameter);
  return parameter;
}

/** Lets a parameter use memory that holds its values. */
export function lend({ storage }: nn.Parameter, memory: DeviceBuffer): void {
  storage.buffer.memory = memory;
  storage.buffer.failure = null;
}

/** Takes the memory back. No submitted program that reads the parameter may be waiting for its turn. */
export function takeBack({ storage }: nn.Parameter): void {
  const reason = new Error(
    `${storage.name} is not in memory now: the weights of its layer are read from their file when the layer is computed. ` +
      "Use model.streamed, which brings them into memory, or load the model without { stream: true }",
  );
  storage.buffer.memory = new Absent(reason);
  storage.buffer.failure = reason;
}

/** Whether memory is lent to a parameter now, or it has memory of its own. */
export function isPresent({ storage }: nn.Parameter): boolean {
  return !(storage.buffer.memory instanceof Absent);
}
