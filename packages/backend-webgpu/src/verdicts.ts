/**
 * What a device makes of an operation is known only later. This tells it of each, in the order in which they were done, so
 * that a failure can be laid to the buffers that it is about.
 */
export class Verdicts {
  readonly #device: GPUDevice;
  #last: Promise<void> = Promise.resolve();

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** Does `work`, and tells `judge` later what was wrong with it: null for nothing. */
  of<T>(filter: GPUErrorFilter, work: () => T, judge: (error: GPUError | null) => void): T {
    this.#device.pushErrorScope(filter);
    try {
      return work();
    } finally {
      const scope = this.#device.popErrorScope().catch(() => null); // the device is lost: reported as that
      this.#last = this.#last.then(async () => judge(await scope));
    }
  }

  /** Resolves once everything done so far has been judged. */
  settled(): Promise<void> {
    return this.#last;
  }
}
