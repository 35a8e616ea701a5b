/** The buffers that kernels of one program may bind: the program's own, then scratch of the steps. */

export class Buffers {
  /** Bytes of each buffer, in their order. */
  readonly bytes: number[];
  readonly #own: number;
  #used = 0;

  constructor(own: readonly number[]) {
    this.bytes = [...own];
    this.#own = own.length;
  }

  /** Scratch of earlier steps may be used again from here on: steps run in order. */
  beginStep(): void {
    this.#used = 0;
  }

  /** A buffer of at least `bytes` bytes for the current step only. */
  scratch(bytes: number): number {
    const index = this.#own + this.#used++;
    if (index === this.bytes.length) this.bytes.push(bytes);
    else this.bytes[index] = Math.max(this.bytes[index]!, bytes);
    return index;
  }

  /** Bytes of the scratch buffers. */
  get scratchBytes(): readonly number[] {
    return this.bytes.slice(this.#own);
  }
}
