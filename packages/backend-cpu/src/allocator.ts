/**
 * Allocation within one linear memory: best fit among free blocks by size class, neighbours coalesced. It only computes
 * addresses.
 *
 * Work is submitted in order and runs in order, so memory freed while earlier work still uses it may be handed at once to
 * work submitted later. Only memory that the host itself writes right away must be past that: every free block carries
 * the ticket of the last work that may touch it, and `allocate` takes the ticket of the work that is done.
 */

/** Blocks start on cache lines, so that threads do not share one by accident. */
const ALIGNMENT = 64;

interface Block {
  readonly start: number;
  readonly size: number;
  /** The last submitted work that may still use it. */
  readonly ticket: number;
}

const CLASSES = 40;

export class Allocator {
  private end: number;
  private readonly limit: number;
  private readonly grow: (end: number) => boolean;
  private readonly byStart = new Map<number, Block>();
  private readonly byEnd = new Map<number, Block>();
  private readonly classes: Set<Block>[] = Array.from({ length: CLASSES }, () => new Set<Block>());
  private readonly sizes = new Map<number, number>();

  /** Hands out [start, limit); `grow` makes memory up to `end` accessible and says whether that was possible. */
  constructor(start: number, limit: number, grow: (end: number) => boolean) {
    this.end = Math.ceil(start / ALIGNMENT) * ALIGNMENT;
    this.limit = limit;
    this.grow = grow;
  }

  /** The address of `bytes` bytes, or null if there is no room. `done`: blocks of later tickets are not used. */
  allocate(bytes: number, done: number = Infinity): number | null {
    const size = Math.max(ALIGNMENT, Math.ceil(bytes / ALIGNMENT) * ALIGNMENT);
    const block = this.find(size, done) ?? this.extend(size, done);
    if (block === null) return null;
    this.remove(block);
    if (block.size > size) this.insert({ ...block, start: block.start + size, size: block.size - size });
    this.sizes.set(block.start, size);
    return block.start;
  }

  /** Frees what `allocate` returned; `ticket` is the last submitted work that may use it. */
  release(start: number, ticket = 0): void {
    const size = this.sizes.get(start);
    if (size === undefined) throw new Error(`address ${start} is not allocated`);
    this.sizes.delete(start);
    let block: Block = { start, size, ticket };
    const before = this.byEnd.get(start);
    if (before !== undefined) block = this.join(before, block);
    const after = this.byStart.get(block.start + block.size);
    if (after !== undefined) block = this.join(block, after);
    this.insert(block);
  }

  /** Bytes handed out. */
  get usedBytes(): number {
    let sum = 0;
    for (const size of this.sizes.values()) sum += size;
    return sum;
  }

  /** Bytes in free blocks. */
  get freeBytes(): number {
    let sum = 0;
    for (const block of this.byStart.values()) sum += block.size;
    return sum;
  }

  private find(size: number, done: number): Block | null {
    for (let c = classOf(size); c < CLASSES; c++) {
      let best: Block | null = null;
      for (const block of this.classes[c] ?? []) {
        if (block.size < size || block.ticket > done) continue;
        // lowest address among equals keeps the high end free
        if (
          best === null ||
          block.size < best.size ||
          (block.size === best.size && block.start < best.start)
        ) {
          best = block;
        }
      }
      if (best !== null) return best;
    }
    return null;
  }

  /** A block at the end of the memory, made of the last free one, if any, and new memory. */
  private extend(size: number, done: number): Block | null {
    const last = this.byEnd.get(this.end);
    const usable = last !== undefined && last.ticket <= done ? last : undefined;
    const start = usable?.start ?? this.end;
    const end = start + size;
    if (end > this.limit || !this.grow(end)) return null;
    if (usable !== undefined) this.remove(usable);
    this.end = end;
    const block = { start, size, ticket: usable?.ticket ?? 0 };
    this.insert(block);
    return block;
  }

  private join(a: Block, b: Block): Block {
    if (this.byStart.get(a.start) === a) this.remove(a);
    if (this.byStart.get(b.start) === b) this.remove(b);
    return { start: a.start, size: a.size + b.size, ticket: Math.max(a.ticket, b.ticket) };
  }

  private insert(block: Block): void {
    this.byStart.set(block.start, block);
    this.byEnd.set(block.start + block.size, block);
    this.classes[classOf(block.size)]?.add(block);
  }

  private remove(block: Block): void {
    this.byStart.delete(block.start);
    this.byEnd.delete(block.start + block.size);
    this.classes[classOf(block.size)]?.delete(block);
  }
}

function classOf(size: number): number {
  return Math.floor(Math.log2(size));
}
