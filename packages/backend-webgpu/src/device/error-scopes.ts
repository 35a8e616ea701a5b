/**
 * Errors of a GPU device arrive after the call that caused them. Each operation runs in an error scope of its own; its result is
 * reported in the order of the operations, so that a failure is attributed to the buffers that it concerns.
 */
export class ErrorScopes {
  readonly #device: GPUDevice;
  #last: Promise<void> = Promise.resolve();

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** Runs `work`, and later calls `judge` with its error, or with null if there was none. */
  of<T>(filter: GPUErrorFilter, work: () => T, judge: (error: GPUError | null) => void): T {
    this.#device.pushErrorScope(filter);
    try {
      return work();
    } finally {
      const scope = this.#device.popErrorScope().catch(() => null); // the device is lost, which is reported separately
      this.#last = this.#last.then(async () => judge(await scope));
    }
  }

  /** Resolves once the errors of all operations so far have been reported. */
  settled(): Promise<void> {
    return this.#last;
  }
}
