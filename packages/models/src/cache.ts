/**
 * The keys and values of the tokens so far, so that a new token costs only one position. The memory has a fixed capacity and
 * is updated in place: every step then runs the same compiled program. The rows that are read at once are padded on the left. Each row
 * knows its own number of slots, so that rows which were read at different times can be continued together (`batching/`).
 */
import { assign, type Device, iota, type Tensor, where } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import type { DecoderConfig } from "./config.ts";
import { frequenciesDiffer } from "./rope.ts";

/** The two tensors of a layer, [batch, kvHeads, capacity, headDim]. */
interface LayerCache {
  k: nn.Parameter;
  v: nn.Parameter;
}

/**
 * The cache of one batch. `generateTokens` manages one by itself; by hand:
 *
 *     const cache = new KvCache(model.config, device, [0], 64);
 *     const logits = model.forward([prompt], { cache });
 *     cache.commit([logits]); // computes the logits and fills the cache, in one program
 *     const next = model.forward([[token]], { cache }); // one token at a time from here on; reserve(1) makes room
 */
export class KvCache {
  readonly config: DecoderConfig;
  readonly device: Device;
  #pads: number[];
  /** Per row: the number of slots in use, padding included; all 0 before the first pass. */
  #ends: number[];
  #begun = false;
  #capacity: number;
  #layers: LayerCache[];
  /** The keys and values that the next commit writes, by layer. */
  #pending: { k: Tensor; v: Tensor; tokens: number }[] = [];
  /** The number of tokens whose updates have been taken, and which are not counted in `ends` yet. */
  #appended = 0;
  /** `ends` on the device, for one pass. */
  #slots: Tensor | null = null;

  /**
   * @param pads for each row, the number of padding tokens on its left
   * @param capacity slots for tokens, padding included
   */
  constructor(config: DecoderConfig, device: Device, pads: readonly number[], capacity: number) {
    this.config = config;
    this.device = device;
    this.#pads = [...pads];
    this.#ends = pads.map(() => 0);
    this.#capacity = capacity;
    this.#layers = this.#allocate(capacity);
  }

  /** Per row: how many slots at its start are padding. */
  get pads(): readonly number[] {
    return this.#pads;
  }
  /** Per row: the slots in use, padding included. */
  get ends(): readonly number[] {
    return this.#ends;
  }
  /** The slots in use of the longest row, padding included. */
  get length(): number {
    return Math.max(...this.#ends);
  }
  /** Whether the first tokens have been read: later passes take one token for each row. */
  get begun(): boolean {
    return this.#begun;
  }
  /** The slots in use of each row as a tensor, i32 [batch, 1, 1, 1]. */
  get slots(): Tensor {
    const shape = [this.#ends.length, 1, 1, 1];
    return (this.#slots ??= this.device.tensor(Int32Array.from(this.#ends), { shape, dtype: "i32" }));
  }
  /** All slots; `reserve` adds more. */
  get capacity(): number {
    return this.#capacity;
  }

  /**
   * Whether one more token changes the rotary frequencies of the earlier ones, as dynamic and longrope scaling do beyond
   * the original length: the cache is then useless, and the whole sequence has to be read again, with a new cache.
   */
  get stale(): boolean {
    return this.#ends.some((_, row) => this.staleRow(row));
  }

  /** Whether one more token changes the rotary frequencies of a row's earlier ones. */
  staleRow(row: number): boolean {
    const { rope } = this.config;
    const tokens = this.#ends[row]! - this.#pads[row]!;
    return rope !== null && tokens > 0 && frequenciesDiffer(rope, tokens, tokens + 1);
  }

  #allocate(capacity: number): LayerCache[] {
    const { layers, kvHeads, headDim } = this.config;
    const shape = [this.#pads.length, kvHeads, capacity, headDim];
    const zeros = (name: string): nn.Parameter => {
      const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
      return nn.Parameter.from(this.device, values, shape, "f32", name);
    };
    return Array.from({ length: layers }, (_, i) => ({
      k: zeros(`keys of layer ${i}`),
      v: zeros(`values of layer ${i}`),
    }));
  }

  /**
   * Takes the keys and values [batch, kvHeads, tokens, headDim] of new tokens in a layer; returns the keys and values that the
   * new tokens attend to. The first tokens of a cache may be many at once; later calls take one each. Throws RangeError for
   * more than one later token, or if the capacity is exceeded.
   */
  append(layer: number, k: Tensor, v: Tensor): [k: Tensor, v: Tensor] {
    const tokens = k.shape[2]!;
    if (this.length + tokens > this.#capacity) {
      throw new RangeError(
        `cache: ${this.length} + ${tokens} tokens exceed its capacity of ${this.#capacity}; call reserve first`,
      );
    }
    if (!this.#begun) {
      const widths = [
        [0, 0],
        [0, 0],
        [0, this.#capacity - tokens],
        [0, 0],
      ] as const;
      this.#pending[layer] = { k: k.pad(widths), v: v.pad(widths), tokens };
      return [k, v];
    }
    if (tokens !== 1)
      throw new RangeError(
        `cache: ${tokens} tokens were given after the first ${this.length}; give one token at a time`,
      );
    const here = iota([1, 1, this.#capacity, 1], 2).eq(this.slots);
    const old = this.#layers[layer]!;
    const [newK, newV] = [where(here, k, old.k), where(here, v, old.v)];
    this.#pending[layer] = { k: newK, v: newV, tokens };
    return [newK, newV];
  }

  /** Computes `outputs` and stores what the forward pass has appended, in one program. */
  commit(outputs: readonly Tensor[]): void {
    assign(this.takeUpdates(), outputs);
    this.advance();
  }

  /** The updates that store what has been appended since the last call, for a pass that is computed layer by layer. */
  takeUpdates(): [nn.Parameter, Tensor][] {
    const updates = this.#pending.flatMap(({ k, v, tokens }, layer): [nn.Parameter, Tensor][] => {
      this.#appended = tokens;
      return [
        [this.#layers[layer]!.k, k],
        [this.#layers[layer]!.v, v],
      ];
    });
    this.#pending = [];
    return updates;
  }

  /** Ends a pass: the tokens whose updates have been taken now count as in the cache. */
  advance(): void {
    this.#ends = this.#ends.map((end) => end + this.#appended);
    this.#begun ||= this.#appended > 0;
    this.#appended = 0;
    this.#slots = null;
  }

  /** Empties a row: its next token goes into the first slot. */
  release(row: number): void {
    if (this.#ends[row] === 0) return;
    this.#ends[row] = 0;
    this.#pads[row] = 0;
    this.#slots = null;
  }

  /**
   * A new cache whose rows are copies of this one's: row i is a copy of row `sources[i]`, or empty if that is null. This cache is
   * freed.
   */
  rearranged(sources: readonly (number | null)[]): KvCache {
    const next = new KvCache(this.config, this.device, sources.map(() => 0), this.#capacity); // prettier-ignore
    next.copyRows(this, sources);
    this.free();
    return next;
  }

  /** Replaces rows by copies of another cache's, which has at most this one's capacity: row i by row `sources[i]`; null keeps a row. */
  copyRows(from: KvCache, sources: readonly (number | null)[]): void {
    const index = (of: (source: number | null) => number): Int32Array => Int32Array.from(sources, of);
    const taken = this.device.tensor(index((source) => source ?? 0));
    const shape = [sources.length, 1, 1, 1];
    const replaced = this.device
      .tensor(
        index((source) => (source === null ? 0 : 1)),
        { shape, dtype: "i32" },
      )
      .gt(0);
    const widths = [[0, 0], [0, 0], [0, this.#capacity - from.capacity], [0, 0]] as const; // prettier-ignore
    const chosen = (theirs: Tensor, own: Tensor): Tensor =>
      where(replaced, theirs.take(taken).pad(widths), own);
    // one program for all layers: they are alike
    for (const [layer, own] of this.#layers.entries()) {
      const { k, v } = from.#layers[layer]!;
      assign([[own.k, chosen(k, own.k)], [own.v, chosen(v, own.v)]], []); // prettier-ignore
    }
    for (const [row, source] of sources.entries()) {
      if (source === null) continue;
      this.#ends[row] = from.#ends[source]!;
      this.#pads[row] = from.#pads[source]!;
    }
    this.#begun ||= from.#begun;
    this.#slots = null;
  }

  /** Makes room for `tokens` more tokens; a capacity that is too small is at least doubled. */
  reserve(tokens: number): void {
    const needed = this.length + tokens;
    if (needed <= this.#capacity) return;
    let grown = 2 * this.#capacity;
    while (grown < needed) grown *= 2;
    const old = this.#layers;
    const widths = [
      [0, 0],
      [0, 0],
      [0, grown - this.#capacity],
      [0, 0],
    ] as const;
    this.#layers = this.#allocate(grown);
    const pairs = old.flatMap(({ k, v }, i): [nn.Parameter, Tensor][] => [
      [this.#layers[i]!.k, k.pad(widths)],
      [this.#layers[i]!.v, v.pad(widths)],
    ]);
    assign(pairs, []);
    this.#capacity = grown;
    for (const { k, v } of old) {
      k.storage.buffer.free();
      v.storage.buffer.free();
    }
  }

  /** Frees the memory. */
  free(): void {
    for (const { k, v } of this.#layers) {
      k.storage.buffer.free();
      v.storage.buffer.free();
    }
    this.#layers = [];
  }
}
