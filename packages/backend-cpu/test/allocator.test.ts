/** The allocator: blocks never overlap, memory in use by unfinished work is kept from the host, and all of it comes back. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Allocator } from "../src/allocator.ts";

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
