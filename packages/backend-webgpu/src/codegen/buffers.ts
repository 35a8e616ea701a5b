/** The buffers that the kernels of one step may bind: the step's own, then scratch buffers. */

export class Buffers {
  /** Bytes of each buffer, in their order. */
  readonly bytes: number[];
  readonly #own: number;

  constructor(own: readonly number[]) {
    this.bytes = [...own];
    this.#own = own.length;
  }

  /** A buffer of `bytes` bytes for the step only. */
  scratch(bytes: number): number {
    return this.bytes.push(bytes) - 1;
  }

  /** Bytes of the scratch buffers. */
  get scratchBytes(): readonly number[] {
    return this.bytes.slice(this.#own);
  }
}
