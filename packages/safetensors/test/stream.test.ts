/** Bytes of blobs and streams of the web, read into memory that is there already. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { blobSource } from "../src/format.ts";
import { streamInto } from "../src/stream.ts";

/** More than is read at once. */
const BYTES = Uint8Array.from({ length: 700_001 }, (_, i) => (i * 7 + (i >> 9)) % 256);

test("a blob is read into shared memory from any byte on; at its end fewer bytes come", async () => {
  const source = blobSource(new Blob([BYTES]), "blob");
  for (const [offset, length] of [
    [0, 10],
    [3, 600_001],
    [699_990, 100],
    [0, BYTES.length],
    [5, 0],
  ] as const) {
    const target = new Uint8Array(new SharedArrayBuffer(length));
    const count = await source.readInto!(offset, target);
    const expected = BYTES.slice(offset, offset + length);
    assert.deepEqual(target.slice(0, count), expected);
  }
});

test("a stream with buffers of its own is read until it or the memory ends", async () => {
  const stream = (): ReadableStream<Uint8Array> =>
    new ReadableStream({
      start: (controller) => {
        for (const [from, to] of [
          [0, 1000],
          [1000, 1001],
          [1001, 3000],
        ] as const)
          controller.enqueue(BYTES.slice(from, to));
        controller.close();
      },
    });
  for (const [length, count] of [
    [2500, 2500],
    [3000, 3000],
    [3500, 3000],
  ] as const) {
    const target = new Uint8Array(length);
    assert.equal(await streamInto(stream(), target), count);
    assert.deepEqual(target.slice(0, count), BYTES.slice(0, count));
  }
});

test("after a stream that breaks off, others are read as before", async () => {
  const broken = new ReadableStream({
    type: "bytes",
    pull: (controller) => controller.error(new Error("the connection was cut")),
  });
  await assert.rejects(streamInto(broken, new Uint8Array(10)), /the connection was cut/);
  const target = new Uint8Array(10);
  assert.equal(await streamInto(new Blob([BYTES]).stream(), target), 10);
  assert.deepEqual(target, BYTES.slice(0, 10));
});
