/**
 * Two slots of device memory, each large enough for any one layer. While the device computes a layer with the weights in one
 * slot, the weights of the next layer are read into the other.
 */
import type { Device, Storage } from "@tiedlora/core";
import { lend, type PagedPart, type PagedWeight, takeBack } from "./paged.ts";

interface Slot {
  /** Memory for the parts of a layer's weights, in their order. */
  readonly memory: readonly Storage[];
  /** The layer whose weights are in the slot; null if there are none, or not all of one. */
  layer: number | null;
  /** Resolves when the device has done the work that uses the slot. */
  done: Promise<unknown>;
}

const partsOf = (layer: readonly PagedWeight[]): PagedPart[] => layer.flatMap(({ parts }) => parts);

export class Slots {
  readonly #device: Device;
  readonly #layers: readonly (readonly PagedWeight[])[];
  /** The sizes of a slot's buffers: each is as large as the largest part that any layer has in its place. */
  readonly #sizes: readonly number[];
  #slots: readonly Slot[] = [];

  /** `layers`: for each layer, its weights. Layers of one kind have theirs in the same order. */
  constructor(device: Device, layers: readonly (readonly PagedWeight[])[]) {
    this.#device = device;
    this.#layers = layers;
    const parts = layers.map(partsOf);
    const places = Math.max(0, ...parts.map(({ length }) => length));
    this.#sizes = Array.from({ length: places }, (_, i) =>
      Math.max(...parts.map((layer) => layer[i]?.bytes ?? 0)),
    );
  }

  /** The bytes of both slots. */
  get bytes(): number {
    return 2 * this.#sizes.reduce((a, b) => a + b, 0);
  }

  /**
   * For each layer of `order` in turn, calls `work` when the layer's weights are in memory. `work` submits what has to be computed
   * with them, and returns a promise that is settled when that is done. Rejects with the first failure of reading or of `work`.
   */
  async visit(
    order: readonly number[],
    work: (layer: number, turn: number) => Promise<unknown>,
  ): Promise<void> {
    await this.#open();
    let next = this.#bring(order[0]!, null);
    try {
      for (const [turn, layer] of order.entries()) {
        const slot = await next;
        for (const [i, { parameter }] of partsOf(this.#layers[layer]!).entries())
          lend(parameter, slot.memory[i]!.buffer.memory);
        slot.done = work(layer, turn);
        slot.done.catch(() => undefined); // a failure is thrown where `done` is awaited
        if (turn + 1 < order.length) next = this.#bring(order[turn + 1]!, slot);
        next.catch(() => undefined);
      }
      for (const slot of this.#slots) await slot.done;
    } finally {
      await Promise.allSettled([next, ...this.#slots.map(({ done }) => done)]);
      for (const slot of this.#slots) slot.done = Promise.resolve();
    }
  }

  /** The slot with the weights of `layer`, read from the file unless they are there already. Leaves the slot `busy` alone. */
  async #bring(layer: number, busy: Slot | null): Promise<Slot> {
    const there = this.#slots.find((one) => one.layer === layer);
    if (there) return there;
    const slot = this.#slots.find((one) => one !== busy)!;
    await slot.done;
    this.#empty(slot);
    let place = 0;
    for (const { parts, fill } of this.#layers[layer]!) {
      const memory = slot.memory.slice(place, (place += parts.length));
      await fill(memory.map(({ buffer }) => buffer.memory));
    }
    slot.layer = layer;
    return slot;
  }

  #empty(slot: Slot): void {
    if (slot.layer !== null)
      for (const { parameter } of partsOf(this.#layers[slot.layer]!)) takeBack(parameter);
    slot.layer = null;
  }

  async #open(): Promise<void> {
    if (this.#slots.length > 0) return;
    const memory: Storage[] = [];
    try {
      for (const name of ["the first slot for layers", "the second slot for layers"])
        for (const bytes of this.#sizes) memory.push(this.#device.allocate(bytes, name));
      await this.#device.sync(); // work that was submitted before may still use memory that was free
    } catch (error) {
      for (const { buffer } of memory) buffer.free();
      throw error;
    }
    const places = this.#sizes.length;
    this.#slots = [memory.slice(0, places), memory.slice(places)].map((part) => ({
      memory: part,
      layer: null,
      done: Promise.resolve(),
    }));
  }

  /** Frees the memory; the next visit allocates it again. Not to be called during a visit. */
  free(): void {
    for (const slot of this.#slots) {
      this.#empty(slot);
      for (const { buffer } of slot.memory) buffer.free();
    }
    this.#slots = [];
  }
}
