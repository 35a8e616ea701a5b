/**
 * Allocation within one linear memory: best fit among free blocks by size class; neighboring free blocks are coalesced. It
 * only computes addresses.
 *
 * Work is submitted in order and runs in order, so memory that is freed while earlier work still uses it can be given at once
 * to work submitted later. Only memory that the host itself writes immediately must no longer be in use. A free block is
 * therefore made of stretches, each with the ticket of the last work that may touch it: a stretch that is still in use does
 * not keep the host from using its neighbors.
 */

import { at } from "../assert.ts";

/** Blocks start on cache lines, so that threads do not share one by accident. */
const ALIGNMENT = 64;

interface Stretch {
  readonly size: number;
  /** The last submitted work that may still use it. */
  readonly ticket: number;
}

interface FreeBlock {
  readonly start: number;
  readonly size: number;
  /** The stretches of the block, in order; neighbors with the same ticket are merged. */
  readonly stretches: readonly Stretch[];
}

/** Room found in a free block, `at` bytes from its start. */
interface Room {
  readonly block: FreeBlock;
  readonly at: number;
}

const CLASSES = 40;

export class Allocator {
  #end: number;
  readonly #limit: number;
  readonly #grow: (end: number) => boolean;
  readonly #byStart = new Map<number, FreeBlock>();
  readonly #byEnd = new Map<number, FreeBlock>();
  readonly #classes: Set<FreeBlock>[] = Array.from({ length: CLASSES }, () => new Set<FreeBlock>());
  readonly #sizes = new Map<number, number>();

  /** Allocates in [start, limit); `grow` makes memory up to `end` accessible and returns whether that was possible. */
  constructor(start: number, limit: number, grow: (end: number) => boolean) {
    this.#end = Math.ceil(start / ALIGNMENT) * ALIGNMENT;
    this.#limit = limit;
    this.#grow = grow;
  }

  /**
   * The address of `bytes` bytes, or null if there is no room. With `done`, the ticket of the last finished work, no later
   * work uses the memory.
   */
  allocate(bytes: number, done: number = Infinity): number | null {
    const size = Math.max(ALIGNMENT, Math.ceil(bytes / ALIGNMENT) * ALIGNMENT);
    const found = this.#find(size, done) ?? this.#extend(size, done);
    if (found === null) return null;
    const { block, at } = found;
    this.#remove(block);
    const start = block.start + at;
    if (at > 0) this.#insert(cut(block, 0, at));
    if (at + size < block.size) this.#insert(cut(block, at + size, block.size));
    this.#sizes.set(start, size);
    return start;
  }

  /** Frees what `allocate` returned; `ticket` is the last submitted work that may use it, `done` the last that is finished. */
  release(start: number, ticket = 0, done = 0): void {
    const size = this.#sizes.get(start);
    if (size === undefined) throw new Error(`address ${start} is not allocated`);
    this.#sizes.delete(start);
    let block: FreeBlock = { start, size, stretches: [{ size, ticket }] };
    const before = this.#byEnd.get(start);
    if (before !== undefined) block = this.#join(before, block, done);
    const after = this.#byStart.get(block.start + block.size);
    if (after !== undefined) block = this.#join(block, after, done);
    this.#insert(block);
  }

  /** Bytes handed out. */
  get usedBytes(): number {
    let sum = 0;
    for (const size of this.#sizes.values()) sum += size;
    return sum;
  }

  /** Bytes in free blocks. */
  get freeBytes(): number {
    let sum = 0;
    for (const block of this.#byStart.values()) sum += block.size;
    return sum;
  }

  #find(size: number, done: number): Room | null {
    for (let c = classOf(size); c < CLASSES; c++) {
      let best: Room | null = null;
      for (const block of at(this.#classes, c, "size class")) {
        if (block.size < size) continue;
        // of equal sizes, the lowest address is taken, which keeps the high end free
        const better: boolean =
          best === null ||
          block.size < best.block.size ||
          (block.size === best.block.size && block.start < best.block.start);
        const at: number | null = better ? roomIn(block, size, done) : null;
        if (at !== null) best = { block, at };
      }
      if (best !== null) return best;
    }
    return null;
  }

  /** Room at the end of the memory: the end of the last free block, if any, and new memory. */
  #extend(size: number, done: number): Room | null {
    const last = this.#byEnd.get(this.#end) ?? { start: this.#end, size: 0, stretches: [] };
    const at = last.size - settledEnd(last, done);
    const end = last.start + at + size;
    if (end > this.#limit || !this.#grow(end)) return null;
    const grown = end - this.#end;
    if (last.size > 0) this.#remove(last);
    this.#end = end;
    const stretches = merged([...last.stretches, { size: grown, ticket: 0 }]);
    const block = { start: last.start, size: last.size + grown, stretches };
    this.#insert(block);
    return { block, at };
  }

  #join(a: FreeBlock, b: FreeBlock, done: number): FreeBlock {
    if (this.#byStart.get(a.start) === a) this.#remove(a);
    if (this.#byStart.get(b.start) === b) this.#remove(b);
    const stretches = merged([...a.stretches, ...b.stretches], done);
    return { start: a.start, size: a.size + b.size, stretches };
  }

  #insert(block: FreeBlock): void {
    this.#byStart.set(block.start, block);
    this.#byEnd.set(block.start + block.size, block);
    at(this.#classes, classOf(block.size), "size class").add(block);
  }

  #remove(block: FreeBlock): void {
    this.#byStart.delete(block.start);
    this.#byEnd.delete(block.start + block.size);
    at(this.#classes, classOf(block.size), "size class").delete(block);
  }
}

/** Merges neighbors with the same ticket. Work up to `done` is finished, so its tickets count as the same. */
function merged(stretches: readonly Stretch[], done = 0): Stretch[] {
  const out: Stretch[] = [];
  for (const { size, ticket: own } of stretches) {
    const ticket = own <= done ? 0 : own;
    const last = out.at(-1);
    if (last?.ticket === ticket) out[out.length - 1] = { size: last.size + size, ticket };
    else out.push({ size, ticket });
  }
  return out;
}

/** Bytes `from` to `to` of a block. */
function cut({ start, stretches }: FreeBlock, from: number, to: number): FreeBlock {
  const kept: Stretch[] = [];
  let at = 0;
  for (const { size, ticket } of stretches) {
    const part = Math.min(to, at + size) - Math.max(from, at);
    if (part > 0) kept.push({ size: part, ticket });
    at += size;
  }
  return { start: start + from, size: to - from, stretches: kept };
}

/** The offset in a block of `size` bytes that no work after `done` uses; null if there is none. */
function roomIn({ stretches }: FreeBlock, size: number, done: number): number | null {
  let [at, run] = [0, 0];
  for (const stretch of stretches) {
    run = stretch.ticket <= done ? run + stretch.size : 0;
    at += stretch.size;
    if (run >= size) return at - run;
  }
  return null;
}

/** How many bytes at the end of a block no work after `done` uses. */
function settledEnd({ stretches }: FreeBlock, done: number): number {
  let bytes = 0;
  for (const { size, ticket } of stretches) bytes = ticket <= done ? bytes + size : 0;
  return bytes;
}

function classOf(size: number): number {
  return Math.floor(Math.log2(size));
}
