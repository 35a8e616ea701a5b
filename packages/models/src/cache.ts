/**
 * The keys and values of the tokens so far, so that a new token costs only one position. The memory has a fixed capacity and
 * is updated in place, one slot a step: every step runs the same compiled program. The slots are a ring: the next token of every row goes
 * into the same slot, and after the last slot comes the first. Each row knows how many of the latest slots hold its tokens, so rows that
 * were read at different times can be continued together (`batching/`).
 */
import { assign, type Device, type DType, type Tensor, type TypedArray } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import type { DecoderConfig } from "./config.ts";
import { frequenciesDiffer } from "./rope.ts";

/** Tensors of numbers that follow from the state of a cache, and how they are computed for its next token. */
export interface CacheNumbers {
  readonly tensors: readonly Tensor[];
  readonly compute: () => readonly TypedArray[];
}

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
  readonly #pads: readonly number[];
  /** Per row: the number of its tokens; all 0 before the first pass. */
  #lengths: number[];
  /** How many slots have been written so far: the next token goes into this one, modulo the capacity. */
  #written = 0;
  #begun = false;
  #capacity: number;
  #layers: LayerCache[];
  /** The keys and values that the next commit writes, by layer. */
  #pending: { k: Tensor; v: Tensor; tokens: number }[] = [];
  /** The number of tokens whose updates have been taken, and which are not counted yet. */
  #appended = 0;
  #numbers: CacheNumbers[] = [];
  /** @internal What is kept for the next token; it is freed whenever the memory is. */
  companion: { free(): void } | null = null;

  /**
   * @param pads for each row, the number of padding tokens on the left of its first tokens
   * @param capacity slots for tokens, padding included
   */
  constructor(config: DecoderConfig, device: Device, pads: readonly number[], capacity: number) {
    this.config = config;
    this.device = device;
    this.#pads = [...pads];
    this.#lengths = pads.map(() => 0);
    this.#capacity = capacity;
    this.#layers = this.#allocate(capacity);
  }

  /** Per row: how many padding tokens are on the left of its first tokens. */
  get pads(): readonly number[] {
    return this.#pads;
  }
  /** Per row: its tokens, without padding. */
  get lengths(): readonly number[] {
    return this.#lengths;
  }
  /** The tokens of the longest row. */
  get length(): number {
    return Math.max(...this.#lengths);
  }
  /** Whether the first tokens have been read: later passes take one token for each row. */
  get begun(): boolean {
    return this.#begun;
  }
  /** The slot of the next token. The tokens before it are in the slots before this one; before slot 0 is the last one. */
  get slot(): number {
    return this.#written % this.#capacity;
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
    return this.#lengths.some((_, row) => this.staleRow(row));
  }

  /** Whether one more token changes the rotary frequencies of a row's earlier ones. */
  staleRow(row: number): boolean {
    const { rope } = this.config;
    const tokens = this.#lengths[row]!;
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
    if (this.#begun && tokens !== 1)
      throw new RangeError(
        `cache: ${tokens} tokens were given after the first ${this.length}; give one token at a time`,
      );
    const old = this.#layers[layer]!;
    const newK = nn.sliceScatter(old.k, 2, this.slot, k);
    const newV = nn.sliceScatter(old.v, 2, this.slot, v);
    this.#pending[layer] = { k: newK, v: newV, tokens };
    return this.#begun ? [newK, newV] : [k, v];
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

  /** @internal Tensors, on the device, of the numbers of the next token; `compute` gives those of a later one when it is called then. */
  numbers(
    device: Device,
    shape: readonly number[],
    dtype: DType,
    compute: () => readonly TypedArray[],
  ): readonly Tensor[] {
    const tensors = compute().map((values) => device.tensor(values, { shape, dtype, copy: false }));
    this.#numbers.push({ tensors, compute });
    return tensors;
  }

  /** @internal The tensors that `numbers` has made since the last call. */
  takeNumbers(): CacheNumbers[] {
    const taken = this.#numbers;
    this.#numbers = [];
    return taken;
  }

  /** @internal The memory of keys and values has been given one more token of each row by a program that was run again. */
  appendedAgain(): void {
    this.#appended = 1;
    this.advance();
  }

  /** Ends a pass: the tokens whose updates have been taken now count as in the cache. */
  advance(): void {
    const fresh = this.#begun ? null : this.#pads;
    if (this.#appended > 0)
      this.#lengths = this.#lengths.map((length, row) => length + this.#appended - (fresh?.[row] ?? 0));
    this.#written += this.#appended;
    this.#begun ||= this.#appended > 0;
    this.#appended = 0;
    this.#numbers = [];
  }

  /** Empties a row: its next token is its first. */
  release(row: number): void {
    this.#lengths[row] = 0;
  }

  /**
   * A new cache whose rows are copies of this one's: row i is a copy of row `sources[i]`, or empty if that is null. This cache is
   * freed.
   */
  rearranged(sources: readonly (number | null)[]): KvCache {
    const next = new KvCache(this.config, this.device, sources.map(() => 0), this.#capacity); // prettier-ignore
    const rows = this.device.tensor(Int32Array.from(sources, (source) => source ?? 0));
    // one program for all layers: they are alike
    for (const [layer, { k, v }] of this.#layers.entries()) {
      const own = next.#layers[layer]!;
      assign([[own.k, k.take(rows)], [own.v, v.take(rows)]]); // prettier-ignore
    }
    next.#written = this.#written;
    next.#begun = this.#begun;
    next.#lengths = sources.map((source) => (source === null ? 0 : this.#lengths[source]!));
    this.free();
    return next;
  }

  /** Replaces rows by copies of another cache's, which has at most this one's capacity: row i by row `sources[i]`; null keeps a row. */
  copyRows(from: KvCache, sources: readonly (number | null)[]): void {
    const { kvHeads, headDim } = this.config;
    const [capacity, theirs] = [this.#capacity, from.#capacity];
    // Per slot, the slot of the other cache that holds the token which is as far back from the next one.
    const slots = Array.from({ length: capacity }, (_, slot) => {
      const back = slot < this.slot ? this.slot - slot : this.slot - slot + capacity;
      return (((from.#written - back) % theirs) + theirs) % theirs;
    });
    for (const [row, source] of sources.entries()) {
      if (source === null) continue;
      const at = Int32Array.from({ length: kvHeads * capacity }, (_, i) => {
        const head = source * kvHeads + Math.floor(i / capacity);
        return head * theirs + slots[i % capacity]!;
      });
      const index = this.device.tensor(at);
      const rowOf = (x: Tensor): Tensor =>
        x
          .reshape([x.size / headDim, headDim])
          .take(index)
          .reshape([1, kvHeads, capacity, headDim]);
      for (const [layer, own] of this.#layers.entries()) {
        const { k, v } = from.#layers[layer]!;
        assign([
          [own.k, nn.sliceScatter(own.k, 0, row, rowOf(k))],
          [own.v, nn.sliceScatter(own.v, 0, row, rowOf(v))],
        ]);
      }
      this.#lengths[row] = from.#lengths[source]!;
    }
    this.#begun ||= from.#begun;
  }

  /** Makes room for `tokens` more tokens; a capacity that is too small is at least doubled. */
  reserve(tokens: number): void {
    const needed = this.length + tokens;
    if (needed <= this.#capacity) return;
    let grown = 2 * this.#capacity;
    while (grown < needed) grown *= 2;
    this.companion?.free();
    const old = this.#layers;
    const times = grown / this.#capacity;
    // Slot s holds what slot s modulo the old capacity held: from the next slot backward, the latest tokens come first, as before.
    const repeated = (x: Tensor): Tensor => {
      const [batch, heads, slots, width] = x.shape as [number, number, number, number];
      const copies = x.unsqueeze(2).expand([batch, heads, times, slots, width]);
      return copies.reshape([batch, heads, grown, width]);
    };
    this.#layers = this.#allocate(grown);
    const pairs = old.flatMap(({ k, v }, i): [nn.Parameter, Tensor][] => [
      [this.#layers[i]!.k, repeated(k)],
      [this.#layers[i]!.v, repeated(v)],
    ]);
    assign(pairs, []);
    this.#written = this.slot; // before the capacity changes: where the next token goes stays the same
    this.#capacity = grown;
    for (const { k, v } of old) {
      k.storage.buffer.free();
      v.storage.buffer.free();
    }
  }

  /** Frees the memory. */
  free(): void {
    this.companion?.free();
    for (const { k, v } of this.#layers) {
      k.storage.buffer.free();
      v.storage.buffer.free();
    }
    this.#layers = [];
  }
}
