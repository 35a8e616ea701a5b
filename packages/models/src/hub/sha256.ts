/** SHA-256 of bytes that come in pieces, which a browser's own crypto does not offer. FIPS 180-4. */

/** The first 64 primes. */
const PRIMES = Array.from({ length: 312 }, (_, n) => n).filter((n) => {
  for (let d = 2; d * d <= n; d++) if (n % d === 0) return false;
  return n > 1;
});
/** The first 32 bits of the fractional part; double precision has enough of them for roots of small numbers. */
const fraction = (x: number): number => ((x - Math.floor(x)) * 2 ** 32) >>> 0;
const ROUND = Int32Array.from(PRIMES, (p) => fraction(Math.cbrt(p)));
const START = Int32Array.from(PRIMES.slice(0, 8), (p) => fraction(Math.sqrt(p)));
const BLOCK = 64;

export class Sha256 {
  readonly #state = Int32Array.from(START);
  readonly #words = new Int32Array(64);
  readonly #block = new Uint8Array(BLOCK);
  #length = 0;

  update(bytes: Uint8Array): this {
    let at = 0;
    const held = this.#length % BLOCK;
    this.#length += bytes.byteLength;
    if (held > 0) {
      at = Math.min(BLOCK - held, bytes.byteLength);
      this.#block.set(bytes.subarray(0, at), held);
      if (held + at < BLOCK) return this;
      this.#compress(this.#block, 0);
    }
    for (; at + BLOCK <= bytes.byteLength; at += BLOCK) this.#compress(bytes, at);
    this.#block.set(bytes.subarray(at));
    return this;
  }

  /** The digest in hexadecimal; nothing can be added afterwards. */
  hex(): string {
    const length = this.#length;
    const padded = new Uint8Array(Math.ceil(((length % BLOCK) + 9) / BLOCK) * BLOCK - (length % BLOCK));
    padded[0] = 0x80;
    new DataView(padded.buffer).setBigUint64(padded.byteLength - 8, BigInt(length) * 8n);
    this.update(padded);
    return [...this.#state].map((word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
  }

  #compress(bytes: Uint8Array, at: number): void {
    const w = this.#words;
    for (let i = 0; i < 16; i++, at += 4)
      w[i] = (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
    for (let i = 16; i < 64; i++) {
      const [x, y] = [w[i - 15]!, w[i - 2]!];
      const low = rotate(x, 7) ^ rotate(x, 18) ^ (x >>> 3);
      const high = rotate(y, 17) ^ rotate(y, 19) ^ (y >>> 10);
      w[i] = (w[i - 16]! + low + w[i - 7]! + high) | 0;
    }
    const state = this.#state;
    let [a, b, c, d, e, f, g, h] = state as unknown as [
      number,
      number,
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    for (let i = 0; i < 64; i++) {
      const high = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
      const one = (h + high + ((e & f) ^ (~e & g)) + ROUND[i]! + w[i]!) | 0;
      const low = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
      const two = (low + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + one) | 0;
      d = c;
      c = b;
      b = a;
      a = (one + two) | 0;
    }
    [a, b, c, d, e, f, g, h].forEach((value, i) => (state[i] = (state[i]! + value) | 0));
  }
}

const rotate = (x: number, n: number): number => (x >>> n) | (x << (32 - n));
