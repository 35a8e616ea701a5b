/** The buffers that kernels of one program may bind: the program's own, then the scratch buffers of its steps. */

export class Buffers {
  /** Bytes of each buffer, in their order. */
  readonly bytes: number[];
  readonly #own: number;
  #used = 0;

  constructor(own: readonly number[]) {
    this.bytes = [...own];
    this.#own = own.length;
  }

  /** Begins a step. Steps run in order, so it may reuse the scratch buffers of earlier steps. */
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
