/**
 * The memory of temporaries, which all programs of a device share: they run one after another, and none finds anything in its temporaries.
 * There is one block for the largest temporary of every program, one for the second largest, and so on; each is as large as the largest
 * program needs, so that programs for many lengths take the memory of one.
 *
 * A larger block replaces the one before it once the device is known to have memory for it. So if a large program fails for lack of memory,
 * the others go on.
 */
import type { Block, MemoryPool } from "./memory.ts";

/** A block, and the bytes that it was taken for. */
interface Taken {
  readonly block: Block;
  readonly bytes: number;
}

interface Slot {
  held: Taken;
  /** A larger block, until it is known whether there is memory for it. */
  next: Taken | undefined;
  /** How many programs use the slot: as many as use the slot after it, or more. */
  users: number;
}

const suffices = ({ block }: Taken, bytes: number): boolean => !block.refused && block.size >= bytes;

export class Temporaries {
  readonly #pool: MemoryPool;
  readonly #slots: Slot[] = [];
  #version = 0;

  constructor(pool: MemoryPool) {
    this.#pool = pool;
  }

  /** Another number once `at` may give another block. */
  get version(): number {
    return this.#version;
  }

  /** The block for the temporary of `bytes` bytes of a program that has k larger ones, after `ensure`. Valid until `version` changes. */
  at(k: number, bytes: number): Block {
    const { held, next } = this.#slots[k]!;
    return (suffices(held, bytes) ? held : next!).block;
  }

  /** Makes room for a program with temporaries of so many bytes, the largest first. If an allocation fails, throws and has no effect. */
  reserve(sizes: readonly number[]): void {
    this.ensure(sizes);
    for (const k of sizes.keys()) this.#slots[k]!.users++;
  }

  /** Ends the use of the first `count` slots by a program. */
  release(count: number): void {
    for (const slot of this.#slots.slice(0, count)) slot.users--;
    while (this.#slots.at(-1)?.users === 0) {
      const { held, next } = this.#slots.pop()!;
      this.#give(held);
      this.#give(next);
    }
  }

  /** Makes room for a run of a program that has reserved it: meanwhile, the device may have refused a block. */
  ensure(sizes: readonly number[]): void {
    for (const slot of this.#slots) this.#settle(slot);
    const fresh = new Map<number, Taken>();
    try {
      for (const [k, bytes] of sizes.entries()) {
        const slot = this.#slots[k];
        if (slot && (suffices(slot.held, bytes) || (slot.next && suffices(slot.next, bytes)))) continue;
        fresh.set(k, { block: this.#pool.take(bytes), bytes });
      }
    } catch (error) {
      for (const taken of fresh.values()) this.#give(taken);
      throw error;
    }
    for (const [k, taken] of fresh) this.#add(k, taken);
  }

  #add(k: number, taken: Taken): void {
    const slot = this.#slots[k];
    this.#version++;
    if (slot === undefined) {
      this.#slots[k] = { held: taken, next: undefined, users: 0 };
    } else if (slot.held.block.refused) {
      this.#give(slot.held);
      slot.held = taken;
    } else {
      this.#give(slot.next);
      slot.next = taken;
    }
  }

  /** Replaces the block of a slot by a larger one that the device is known to have, and forgets one that it has refused. */
  #settle(slot: Slot): void {
    const { held, next } = slot;
    if (!next || !(next.block.granted || next.block.refused)) return;
    this.#give(next.block.refused ? next : held);
    if (!next.block.refused) slot.held = next;
    slot.next = undefined;
    this.#version++;
  }

  #give(taken: Taken | undefined): void {
    if (taken) this.#pool.give(taken.block, taken.bytes);
  }
}
