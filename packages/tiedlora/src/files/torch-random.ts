/**
 * PyTorch's CPU generator, bit for bit. Python's peft draws VeRA's projections from it if a file holds none. The generator is
 * MT19937 (Matsumoto, Nishimura 1998).
 */

const SIZE = 624;
const SHIFT = 397;

/** The generator torch.Generator("cpu").manual_seed(seed), for integer seeds; only their low 32 bits count. */
export class TorchGenerator {
  readonly #state = new Uint32Array(SIZE);
  #at = SIZE;

  constructor(seed: number) {
    if (!Number.isSafeInteger(seed)) throw new RangeError(`a seed of ${seed}; expected an integer`);
    this.#state[0] = Number(BigInt.asUintN(32, BigInt(seed)));
    for (let i = 1; i < SIZE; i++) {
      const before = this.#state[i - 1]!;
      this.#state[i] = Math.imul(1812433253, before ^ (before >>> 30)) + i;
    }
  }

  /** Returns the next 32 bits, as an unsigned integer. */
  next(): number {
    if (this.#at === SIZE) this.#refill();
    let y = this.#state[this.#at++]!;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  #refill(): void {
    const state = this.#state;
    for (let i = 0; i < SIZE; i++) {
      const y = (state[i]! & 0x80000000) | (state[(i + 1) % SIZE]! & 0x7fffffff);
      state[i] = state[(i + SHIFT) % SIZE]! ^ (y >>> 1) ^ ((y & 1) * 0x9908b0df);
    }
    this.#at = 0;
  }

  /**
   * The values of torch.nn.init.kaiming_uniform_ with its defaults on a new f32 tensor [rows, columns]: U(-b, b),
   * b = √3 · √2 / √columns. The product and the sum are rounded once, as on processors with fused multiply-add.
   */
  kaimingUniform(rows: number, columns: number): Float32Array {
    const bound = (Math.sqrt(3) * Math.SQRT2) / Math.sqrt(columns);
    const from = Math.fround(-bound);
    const range = Math.fround(Math.fround(bound) - from);
    // the product of two 24-bit numbers is exact in float64
    return Float32Array.from(
      { length: rows * columns },
      () => (this.next() & 0xffffff) * 2 ** -24 * range + from,
    );
  }
}

/** VeRA's shared projections A [rank, in] and B [out, rank], as peft draws them from `projection_prng_key`. */
export function veraProjections(
  seed: number,
  rank: number,
  inFeatures: number,
  outFeatures: number,
): { readonly A: Float32Array; readonly B: Float32Array } {
  const generator = new TorchGenerator(seed);
  const A = generator.kaimingUniform(rank, inFeatures);
  return { A, B: generator.kaimingUniform(outFeatures, rank) };
}
