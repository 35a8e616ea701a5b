/**
 * Sequences that are decoded together: each has a row of one cache. Rows are taken and given back while the others go on; their number
 * is a power of two that follows the number of sequences.
 */
import type { KvCache } from "../cache.ts";
import { cacheFor, leftPadded, nextLogits } from "../decode.ts";
import type { Decoder } from "../decoder.ts";
import { Arrangement, rowsFor } from "./arrangement.ts";
import type { Sequence } from "./sequence.ts";

/** After so many steps with at least half of the rows unused, the rows become fewer. */
const CALM_STEPS = 8;

type Rows = (Sequence | null)[];

const namesOf = (rows: Rows): (string | null)[] => rows.map((one) => one?.adapter ?? null);
const present = (rows: Rows): Sequence[] => rows.filter((one) => one !== null);

export class Lane {
  readonly #model: Decoder;
  readonly #arrangement = new Arrangement();
  #rows: Rows = [];
  #cache: KvCache | null = null;
  #calm = 0;

  constructor(model: Decoder) {
    this.#model = model;
  }

  /** The number of sequences that have a row. */
  get active(): number {
    return present(this.#rows).length;
  }

  /** Gives the rows of sequences that are done to others. Without any sequence, the memory is given back. */
  tidy(): void {
    for (const [row, sequence] of this.#rows.entries()) {
      if (!sequence?.done) continue;
      this.#rows[row] = null;
      this.#cache?.release(row);
    }
    if (this.active === 0) this.#drop();
  }

  #drop(): void {
    this.#cache?.free();
    this.#cache = null;
    this.#rows = [];
    this.#calm = 0;
  }

  /** Reads the prompts of sequences, takes their first tokens, and gives them rows. */
  async admit(fresh: readonly Sequence[]): Promise<void> {
    try {
      await this.#read(fresh);
    } catch (error) {
      for (const sequence of fresh) sequence.fail(error);
    }
    this.tidy();
  }

  async #read(fresh: readonly Sequence[]): Promise<void> {
    const size = rowsFor(fresh.map(({ adapter }) => adapter));
    const rows: Rows = Array.from({ length: size }, (_, i) => fresh[i] ?? null);
    const ids = rows.map((one) => one?.ids ?? [0]);
    const input = leftPadded(ids);
    const cache = cacheFor(this.#model, input, ids);
    try {
      const adapters = new Arrangement().of(namesOf(rows));
      this.#take(rows, await nextLogits(this.#model, input, cache, { adapters }));
    } catch (error) {
      cache.free();
      throw error;
    }
    if (this.#cache === null) {
      this.#cache = cache; // nobody else is here: the rows stay where they were read
      this.#rows = rows;
    } else {
      this.#place(rows, cache);
      cache.free();
    }
  }

  /** Copies the rows of sequences that go on from the cache that they were read into. */
  #place(fresh: Rows, from: KvCache): void {
    const going = fresh.map((one) => (one?.done ? null : one));
    const needed = rowsFor([...present(this.#rows), ...present(going)].map(({ adapter }) => adapter));
    if (needed > this.#rows.length) this.#resize(needed);
    const cache = this.#cache!;
    cache.reserve(from.capacity - cache.length);
    const sources = this.#rows.map((): number | null => null);
    for (const [source, sequence] of going.entries()) {
      if (sequence === null) continue;
      const row = this.#rows.indexOf(null);
      this.#rows[row] = sequence;
      sources[row] = source;
    }
    cache.copyRows(from, sources);
  }

  /** Changes the number of rows; the sequences move to the first ones. */
  #resize(size: number): void {
    const kept = this.#rows.flatMap((one, row) => (one === null ? [] : [row]));
    const sources = Array.from({ length: size }, (_, i) => kept[i] ?? null);
    this.#rows = sources.map((source) => (source === null ? null : this.#rows[source]!));
    this.#cache = this.#cache!.rearranged(sources);
    this.#calm = 0;
  }

  /** One more token for each sequence. */
  async step(): Promise<void> {
    const stale = this.#removeStale();
    const sequences = present(this.#rows);
    try {
      if (sequences.length > 0) await this.#next(sequences);
    } catch (error) {
      for (const sequence of sequences) sequence.fail(error);
    }
    this.tidy();
    if (stale.length > 0) await this.admit(stale);
  }

  async #next(sequences: readonly Sequence[]): Promise<void> {
    const needed = rowsFor(sequences.map(({ adapter }) => adapter));
    this.#calm = 2 * needed <= this.#rows.length ? this.#calm + 1 : 0;
    if (this.#calm >= CALM_STEPS) this.#resize(needed);
    const cache = this.#cache!;
    const input = this.#rows.map((one) => [one?.ids.at(-1) ?? 0]);
    const adapters = this.#arrangement.of(namesOf(this.#rows));
    const logits = await nextLogits(this.#model, input, cache, { adapters });
    for (const [row, one] of this.#rows.entries()) if (one === null) cache.release(row);
    this.#take(this.#rows, logits);
  }

  #take(
    rows: Rows,
    logits: ArrayLike<number> & { subarray(from: number, to: number): ArrayLike<number> },
  ): void {
    const { vocab } = this.#model.config;
    for (const [row, one] of rows.entries()) one?.take(logits.subarray(row * vocab, (row + 1) * vocab));
  }

  /** Takes the sequences out whose cached keys no longer fit, since rotary frequencies depend on the length: they are read anew. */
  #removeStale(): Sequence[] {
    const stale: Sequence[] = [];
    for (const [row, one] of this.#rows.entries()) {
      if (one === null || !this.#cache!.staleRow(row)) continue;
      stale.push(one);
      this.#rows[row] = null;
      this.#cache!.release(row);
    }
    return stale;
  }
}
