/**
 * The allocator: blocks never overlap, the host never gets memory that unfinished work uses, and all memory can be allocated
 * again.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Allocator } from "../src/device/allocator.ts";

const LIMIT = 1 << 20;
/** Blocks start on cache lines. */
const ALIGNMENT = 64;
const action = fc.record({
  free: fc.boolean(),
  bytes: fc.integer({ min: 0, max: 5000 }),
  pick: fc.nat(),
});

test("blocks are aligned, within bounds, apart from one another, and coalesce when freed", () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 120 }), (actions) => {
      const allocator = new Allocator(64, LIMIT, () => true);
      const held: { start: number; size: number }[] = [];
      let highest = 64;
      for (const { free, bytes, pick } of actions) {
        if (free && held.length > 0) {
          const [block] = held.splice(pick % held.length, 1);
          allocator.release(block!.start);
          continue;
        }
        const start = allocator.allocate(bytes);
        if (start === null) continue;
        const size = Math.max(ALIGNMENT, Math.ceil(bytes / ALIGNMENT) * ALIGNMENT);
        assert.equal(start % ALIGNMENT, 0);
        assert.ok(start >= 64 && start + size <= LIMIT);
        for (const other of held) {
          assert.ok(start + size <= other.start || other.start + other.size <= start, "blocks overlap");
        }
        held.push({ start, size });
        highest = Math.max(highest, start + size);
        assert.equal(
          allocator.usedBytes,
          held.reduce((sum, block) => sum + block.size, 0),
        );
      }
      for (const { start } of held) allocator.release(start);
      assert.equal(allocator.usedBytes, 0);
      if (highest > 64) assert.equal(allocator.allocate(highest - 64), 64); // one block again
    }),
    { numRuns: 200 },
  );
});

const isFree = (ticket: number, done: number): boolean => ticket < Infinity && ticket <= done;

/** A simple model of the allocator: for each cache line, who holds it, or, if it is free, the last work that may use it. */
class Model {
  /** Per cache line: Infinity if it is held, otherwise the ticket of the last work that may use it. */
  readonly tickets: number[];

  constructor(bytes: number) {
    this.tickets = new Array<number>(bytes / ALIGNMENT).fill(0);
  }

  /** Whether there are this many neighboring lines that are free of all work after `done`. */
  hasRoom(count: number, done: number): boolean {
    let run = 0;
    return this.tickets.some((ticket) => (run = isFree(ticket, done) ? run + 1 : 0) >= count);
  }
}

test("a block is found exactly if there is room, and none is of unfinished work or another's", () => {
  const lines = fc.integer({ min: 1, max: 12 });
  const step = fc.oneof(
    fc.record({ do: fc.constantFrom("forWork" as const, "forHost" as const), lines }),
    fc.record({ do: fc.constant("free" as const), pick: fc.nat() }),
    fc.record({ do: fc.constant("submit" as const) }),
    fc.record({ do: fc.constant("finish" as const) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 150 }), (steps) => {
      const size = 40 * ALIGNMENT;
      const model = new Model(size);
      const allocator = new Allocator(0, size, () => true);
      const held: { first: number; count: number }[] = [];
      let [last, done] = [0, 0];
      for (const step of steps) {
        if (step.do === "submit") last++;
        else if (step.do === "finish") done = Math.min(last, done + 1);
        else if (step.do === "free") {
          const [block] = held.splice(held.length && step.pick % held.length, 1);
          if (!block) continue;
          allocator.release(block.first * ALIGNMENT, last, done);
          model.tickets.fill(last, block.first, block.first + block.count);
        } else {
          const until = step.do === "forHost" ? done : Infinity;
          const found = allocator.allocate(step.lines * ALIGNMENT, until);
          assert.equal(found !== null, model.hasRoom(step.lines, until));
          if (found === null) continue;
          const first = found / ALIGNMENT;
          const tickets = model.tickets.slice(first, first + step.lines);
          assert.ok(tickets.every((ticket) => isFree(ticket, until)));
          model.tickets.fill(Infinity, first, first + step.lines);
          held.push({ first, count: step.lines });
        }
        const used = held.reduce((sum, { count }) => sum + count * ALIGNMENT, 0);
        assert.equal(allocator.usedBytes, used);
        assert.ok(allocator.freeBytes + used <= size);
      }
      for (const { first } of held) allocator.release(first * ALIGNMENT, last, done);
      assert.equal(allocator.allocate(size, last), 0); // nothing is lost
    }),
    { numRuns: 500 },
  );
});

test("what unfinished work may still use is given to later work, but not to the host", () => {
  const allocator = new Allocator(64, LIMIT, () => true);
  const block = allocator.allocate(4096)!;
  allocator.allocate(64); // so that it is not at the end
  allocator.release(block, 7);
  assert.notEqual(allocator.allocate(4096, 6), block);
  assert.equal(allocator.allocate(4096), block);
});

test("no room, or memory that does not grow, gives null and keeps what there is", () => {
  let grows = true;
  const allocator = new Allocator(64, LIMIT, () => grows);
  assert.equal(allocator.allocate(LIMIT), null);
  const small = allocator.allocate(1000)!;
  grows = false;
  assert.equal(allocator.allocate(100_000), null);
  allocator.release(small);
  assert.equal(allocator.allocate(1000), small);
  assert.throws(() => allocator.release(12_345), /address 12345 is not allocated/);
});
